"""Networks are left as they were found, whoever calls and whatever happens; what does not fit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from heatmaps_helpers import plain_resnet, zoo_model
from torch import Tensor, nn

from pylon_zoo import get_cam
from pylon_zoo.errors import InvalidInputError, InvalidOptionError
from pylon_zoo.heatmaps import methods


def test_of_a_layer_that_runs_twice_the_last_run_counts() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
            self.again = nn.Conv2d(4, 4, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)
            self.fc = nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.relu(self.again(self.relu(self.conv(images)))).mean((2, 3)))

    model, images = Twice().double(), torch.randn(2, 1, 32, 32).double()
    with torch.no_grad():
        last = model.relu(model.again(model.relu(model.conv(images))))
    expected = torch.einsum("kc,bchw->bkhw", model.fc.weight.detach(), last / 256).relu()
    for layer in (None, "relu"):
        maps = get_cam(model, images, size="map", method="gradcam", layer=layer)
        torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_mode_of_the_caller(
    method: str, caller: Callable[[], AbstractContextManager[None]]
) -> None:
    model, images = zoo_model(), torch.randn(1, 1, 64, 64)
    expected = get_cam(model, images, method=method)
    with caller():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        # What the caller makes in inference mode, images and parameters, is of another kind.
        maps = get_cam(copy.deepcopy(model), images.clone(), method=method)
        aligned = get_cam(model, images, method=method, alignment="receptive_field")
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    torch.testing.assert_close(maps, expected)
    assert not maps.requires_grad
    assert not maps.is_inference()
    assert not torch.allclose(aligned, expected) or method == "native"


@pytest.mark.parametrize("method", methods.METHODS)
def test_frozen_parameters_and_images_that_require_gradients(method: str) -> None:
    model, images = zoo_model(), torch.randn(1, 1, 64, 64)
    expected = get_cam(model, images, method=method)
    images.requires_grad_()
    assert torch.equal(get_cam(model, images, method=method), expected)
    model.requires_grad_(False)
    assert torch.equal(get_cam(model, images, method=method), expected)
    assert images.grad is None


def state(model: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "training": [module.training for module in model.modules()],
        "hooks": [list(getattr(m, kind).items()) for m in model.modules() for kind in hooks],
        "parameters": [(n, id(p), p.requires_grad) for n, p in model.named_parameters()],
        "gradients": [None if p.grad is None else id(p.grad) for p in model.parameters()],
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "sums": [None if p.grad is None else float(p.grad.sum()) for p in model.parameters()],
    }


def assert_as_found(model: nn.Module, found: dict[str, Any]) -> None:
    now = state(model)
    torch.testing.assert_close(now.pop("values"), found.pop("values"), rtol=0, atol=0)
    assert now == found


def disturb(model: nn.Module, layer: str) -> None:
    """As in the middle of fine-tuning: mixed modes and flags, gradients, hooks of one's own."""
    model.train()
    for index, (module, parameter) in enumerate(
        zip(model.modules(), model.parameters(), strict=False)
    ):
        module.training = index % 3 > 0
        parameter.requires_grad_(index % 2 == 0)
        parameter.grad = torch.randn_like(parameter) if index % 4 == 0 else None
    model.get_submodule(layer).register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize(
    ("build", "layer", "head"),
    [(zoo_model, "encoder", "pooling"), (plain_resnet, "layer4", "fc")],
)
def test_models_are_left_as_found(
    build: Callable[[], nn.Module],
    layer: str,
    head: str,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, images = build(), torch.randn(1, 1, 64, 64)
    disturb(model, layer)
    found = state(model)
    native_of_plain = method == "native" and build is plain_resnet
    with pytest.raises(InvalidOptionError) if native_of_plain else nullcontext():
        get_cam(model, images, method=method)
    assert_as_found(model, found)
    if native_of_plain:
        return

    calls: list[bool] = []
    forward = model.get_submodule(head).forward

    def fail(values: Tensor) -> Tensor:
        calls.append(model.training)
        if len(calls) >= fails_at:
            raise RuntimeError("out of order")
        return forward(values)

    monkeypatch.setattr(model.get_submodule(head), "forward", fail)
    # In the search for a plain network's layer, at its one pass, and at Score-CAM's masks.
    rounds = 1 + (build is plain_resnet) + (method == "scorecam")
    for fails_at in range(1, rounds + 1):
        calls.clear()
        found = state(model)
        with pytest.raises(RuntimeError, match="out of order"):
            get_cam(model, images, method=method)
        assert calls == [False] * fails_at
        assert_as_found(model, found)


def test_compiled_models() -> None:
    model, images = zoo_model(), torch.randn(1, 1, 64, 64)
    compiled = torch.compile(model, backend="eager")
    for method in ("native", "gradcam"):
        expected = get_cam(model, images, method=method)
        maps = get_cam(compiled, images, method=method)
        # Only what is not compiled folds its batch norms.
        assert (maps - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_layers_that_do_not_fit() -> None:
    model, images = plain_resnet(), torch.randn(1, 1, 64, 64)
    model.unused = nn.Conv2d(1, 1, 1)
    for layer, message in (
        (nn.Identity(), "The layer Identity is no part of this ResNet"),
        ("unused", "The layer Conv2d did not run"),
        ("fc", r"floating \(B, C, h, w\).*Linear gives \(1, 4\)"),
    ):
        with pytest.raises(InvalidOptionError, match=message):
            get_cam(model, images, method="gradcam", layer=layer)
    zoo = zoo_model()
    with pytest.raises(InvalidOptionError, match="gives list"):
        get_cam(zoo, images, method="gradcam", layer="encoder.model")
    with pytest.raises(InvalidOptionError, match="for a layer take one of the methods gradcam,"):
        get_cam(zoo, images, layer="encoder")
    with pytest.raises(InvalidOptionError, match="for a ResNet take one of the methods gradcam,"):
        get_cam(model, images)


class Aside(nn.Module):
    """Its logits do not depend on one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(1, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.aside(images)
        return self.fc(images.mean((2, 3)))


class Tokens(nn.Module):
    """No maps: attention's (B, heads, tokens, channels) has not the image's proportions."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Unfold(8, stride=8)
        self.heads = nn.Unflatten(2, (4, 16))
        self.fc = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.heads(self.cut(images).transpose(1, 2))
        return self.fc(tokens.flatten(2).mean(1))


def test_networks_that_do_not_fit() -> None:
    images = torch.randn(1, 1, 64, 64)
    for grad in (True, False):
        with pytest.raises(InvalidOptionError, match="logits do not depend on this layer"):
            get_cam(Aside().requires_grad_(grad), images, method="gradcam", layer="aside")
    with pytest.raises(InvalidOptionError, match="No module of this Tokens gives a map"):
        get_cam(Tokens(), images, method="gradcam")
    for head, message in (
        (nn.Identity(), r"\(B, K\) logits, here \(1, K\).*shape \(1, 1, 64, 64\)"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(4096, 1)), r"shape \(1,\)"),
    ):
        network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), head)
        with pytest.raises(InvalidInputError, match=message):
            get_cam(network, images, method="gradcam")
