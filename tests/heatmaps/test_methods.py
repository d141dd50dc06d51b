"""The methods against the grad-cam package, and how networks are left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam
import timm
import torch
import torch.nn.functional as F
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from pylon_zoo import create_model, get_cam
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, UnknownNameError
from pylon_zoo.heatmaps import methods

CLASSES = 4
EXPLAINERS = methods.METHODS[1:]


class SignedEigenCAM(pytorch_grad_cam.EigenCAM):
    """The package leaves the component's sign to LAPACK; ours makes its largest value positive."""

    def get_cam_image(self, *args: Any) -> np.ndarray:
        maps = super().get_cam_image(*args)
        largest = [m.flat[np.abs(m).argmax()] for m in maps]
        return maps * np.sign(largest)[:, None, None]


PACKAGE = {
    "gradcam": pytorch_grad_cam.GradCAM,
    "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
    "xgradcam": pytorch_grad_cam.XGradCAM,
    "layercam": pytorch_grad_cam.LayerCAM,
    "eigencam": SignedEigenCAM,
    "scorecam": pytorch_grad_cam.ScoreCAM,
}


class Logits(nn.Module):
    """A model as the package takes it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        output = self.model(images)
        return getattr(output, "logits", output)


class XrayDenseNet(nn.Module):
    """Ends as torchxrayvision's DenseNets do: an in-place ReLU on what ``features`` gave."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        self.inplace = inplace
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(24),
        )
        self.classifier = nn.Linear(24, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        out = F.relu(self.features(images), inplace=self.inplace)
        return self.classifier(F.adaptive_avg_pool2d(out, 1).flatten(1))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def lively(model: nn.Module) -> nn.Module:
    """Norms as after training; timm begins with residual branches that pass nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def zoo_model() -> nn.Module:
    model = lively(create_model("pylon_test_resnet", num_classes=CLASSES, in_chans=1))
    nn.init.normal_(model.head.weight)
    return model


def plain_resnet() -> nn.Module:
    model = lively(timm.create_model("test_resnet", num_classes=CLASSES, in_chans=1))
    nn.init.normal_(model.fc.weight)
    return model


def package_maps(
    method: str,
    model: nn.Module,
    layer: str,
    images: Tensor,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The package's (B, K, H, W), from one call per class; float32, as it resizes in that."""
    wrapped = Logits(copy.deepcopy(model))
    target = wrapped.model.get_submodule(layer)
    with PACKAGE[method](wrapped, [target], reshape_transform=transform) as cam:
        maps = [cam(images, [ClassifierOutputTarget(k)] * len(images)) for k in range(CLASSES)]
    return torch.from_numpy(np.stack(maps, axis=1))


def assert_equals_package(maps: Tensor, reference: Tensor) -> None:
    # Most maps must hold something: the package and we clip at zero, and zeros agree easily.
    assert (reference.amax((-2, -1)) > 0.99).float().mean() >= 0.5
    torch.testing.assert_close(maps.to(reference), reference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", EXPLAINERS)
@pytest.mark.parametrize(
    ("build", "layer", "default"),
    [
        (zoo_model, "encoder.model.layer4", True),
        (zoo_model, "attention.mid", False),
        (plain_resnet, "layer4", True),
        (plain_resnet, "layer2.0.conv1", False),
    ],
)
def test_equal_to_the_package(
    build: Callable[[], nn.Module], layer: str, default: bool, method: str
) -> None:
    """At the input's pixels: the package resizes by cv2 and stretches to [0, 1] before and after.

    ScoreCAM and the rest agree in their definitions, EigenCAM up to its sign.
    """
    model = build().eval()
    images = torch.randn(2, 1, 64, 96)
    maps = get_cam(model, images, method=method, layer=layer, normalize=True)
    assert_equals_package(maps, package_maps(method, model, layer, images))
    if default:
        assert torch.equal(maps, get_cam(model, images, method=method, normalize=True))
    module = model.get_submodule(layer)
    assert torch.equal(maps, get_cam(model, images, method=method, normalize=True, layer=module))


@pytest.mark.parametrize("method", EXPLAINERS)
def test_channels_last_layers(method: str) -> None:
    """Also where channels, height and width are equal: 16 x 16 cells of 16 channels in layer 0."""
    model = SwinTransformer(
        img_size=64,
        in_chans=1,
        num_classes=CLASSES,
        embed_dim=16,
        depths=(1, 1),
        num_heads=(2, 2),
        window_size=4,
    )
    model.eval().double()
    nn.init.normal_(model.head.fc.weight)
    images = torch.randn(2, 1, 64, 64).double()
    for layer, cells in (("norm", 8), ("layers.0", 16)):
        assert get_cam(model, images, size="map", method=method, layer=layer).shape[2:] == (
            cells,
            cells,
        )
        reference = package_maps(method, model, layer, images, lambda x: x.permute(0, 3, 1, 2))
        maps = get_cam(model, images, method=method, layer=layer, normalize=True)
        assert_equals_package(maps, reference)
    default = get_cam(model, images, method=method, size="map")
    assert torch.equal(default, get_cam(model, images, method=method, size="map", layer="norm"))


@pytest.mark.parametrize("method", EXPLAINERS)
def test_in_place_operations_after_the_layer(method: str) -> None:
    """The features are those that the layer gave, whatever the network makes of them in place.

    The package, on a CPU, keeps a reference that the in-place ReLU overwrites; its maps of the
    same network without in-place operations are the ones to compare.
    """
    model = XrayDenseNet().double().eval()
    pure = XrayDenseNet(inplace=False).double().eval()
    pure.load_state_dict(model.state_dict())
    images = torch.randn(2, 1, 40, 32).double()
    assert bool((model.features(images) < 0).any())
    reference = package_maps(method, pure, "features", images)
    assert_equals_package(get_cam(model, images, method=method, normalize=True), reference)


def test_gradcam_is_the_map_of_a_linear_classifier_of_mean_features() -> None:
    """Selvaraju et al., section 3.1: Grad-CAM generalizes CAM, here divided by the cells."""
    model = create_model("cam_test_resnet", pooling="avg", num_classes=4).double().eval()
    nn.init.normal_(model.head.weight)
    nn.init.normal_(model.head.bias)
    images = torch.randn(2, 1, 96, 160).double()
    expected = (get_cam(model, images, size="map") - model.head.bias[:, None, None]) / 15
    maps = get_cam(model, images, size="map", method="gradcam")
    assert maps.shape == (2, 4, 3, 5)
    torch.testing.assert_close(maps, expected.relu().detach())
    # Without negative features, so are the methods that weigh gradients, here all equal.
    torch.testing.assert_close(get_cam(model, images, size="map", method="xgradcam"), maps)


def test_eigencam_is_a_principal_component() -> None:
    features = torch.randn(2, 5, 3, 4).double()
    (maps,) = methods.eigencam(features)[:1]
    cells = features[0].flatten(1)
    values, vectors = torch.linalg.eigh(cells.cov() * (cells.shape[1] - 1))
    component = vectors[:, -1] @ (cells - cells.mean(1, keepdim=True))
    torch.testing.assert_close(maps.flatten().abs(), component.abs())
    torch.testing.assert_close(maps.square().sum(), values[-1])
    assert maps.abs().max() == maps.max()
    assert torch.equal(methods.eigencam(torch.ones(1, 5, 3, 4)), torch.zeros(1, 1, 3, 4))


def test_a_channel_that_the_score_prefers_wins_scorecam() -> None:
    """One channel lights the left half, one the right; the score counts the right half's light."""
    features = torch.zeros(1, 2, 4, 4)
    features[0, 0, :, :2] = features[0, 1, :, 2:] = 2
    images = torch.ones(1, 1, 8, 8)

    def score(masked: Tensor) -> Tensor:
        return masked[..., 4:].sum((1, 2, 3))[:, None]

    maps = methods.scorecam(features, images, score, batch_size=1)
    assert maps.shape == (1, 1, 4, 4)
    torch.testing.assert_close(maps[0, 0, 0], torch.tensor([0.0, 0, 2, 2]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", EXPLAINERS)
def test_classes_are_chosen_in_order(method: str) -> None:
    model, images = zoo_model(), torch.randn(2, 1, 64, 64)
    maps = get_cam(model, images, method=method)
    chosen = get_cam(model, images, [2, -1, 2], method=method)
    torch.testing.assert_close(chosen, maps[:, [2, CLASSES - 1, 2]])
    if method == "eigencam":
        assert torch.equal(maps, maps[:, :1].expand_as(maps))
    else:
        assert not torch.equal(maps[:, 2], maps[:, CLASSES - 1])


@pytest.mark.parametrize("method", EXPLAINERS)
def test_batch_is_the_images_one_by_one(method: str) -> None:
    model, images = plain_resnet(), torch.randn(3, 1, 64, 96)
    maps = get_cam(model, images, method=method)
    single = [get_cam(model, image[None], method=method) for image in images]
    scale = float(maps.max())
    torch.testing.assert_close(maps / scale, torch.cat(single) / scale, rtol=1e-4, atol=1e-5)


def test_encoder_runs_once_for_all_classes() -> None:
    model, batches = zoo_model(), []
    model.encoder.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    for method in ("gradcam", "gradcam++", "xgradcam", "layercam", "eigencam"):
        get_cam(model, torch.randn(3, 1, 64, 64), method=method)
        assert batches == [3]
        batches.clear()


def test_scorecam_keeps_to_its_batch_size() -> None:
    model, batches = plain_resnet(), []
    images = torch.randn(3, 1, 64, 64)
    maps = get_cam(model, images, method="scorecam")
    model.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    small = get_cam(model, images, method="scorecam", layer="layer4", batch_size=7)
    channels = model.num_features
    assert batches[0] == 3
    assert sum(batches[1:]) == 3 * channels
    assert max(batches[1:]) == 7
    torch.testing.assert_close(small, maps)
    with pytest.raises(InvalidOptionError, match="batch_size must be at least 1; got 0"):
        get_cam(model, images, method="scorecam", batch_size=0)


def test_gradients_of_few_classes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = zoo_model(), torch.randn(2, 1, 64, 64)
    maps = get_cam(model, images, method="gradcam++")
    monkeypatch.setattr(methods, "GRADIENT_BUDGET", 1)
    torch.testing.assert_close(get_cam(model, images, method="gradcam++"), maps)


class Unbatchable(torch.autograd.Function):
    """The identity; its backward pass looks at a value, which a batched one refuses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (1 if gradient.sum().item() < 1e9 else 2)


def test_operations_without_a_batched_backward_pass() -> None:
    model, images = zoo_model(), torch.randn(2, 1, 64, 64)
    maps = get_cam(model, images, method="gradcam")
    pooling = model.pooling
    model.pooling = nn.Module()
    model.pooling.forward = lambda x: pooling(Unbatchable.apply(x))
    torch.testing.assert_close(get_cam(model, images, method="gradcam"), maps)


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


@pytest.mark.parametrize("method", EXPLAINERS)
@pytest.mark.parametrize("alignment", ["corners_false", "receptive_field"])
def test_16_bit_models_give_float32_maps(method: str, alignment: str) -> None:
    model = zoo_model()
    images = torch.randn(1, 1, 64, 64)
    options = {"method": method, "alignment": alignment, "normalize": True}
    exact = get_cam(model, images, **options)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = get_cam(model, images, **options)
    converted = get_cam(model.bfloat16(), images.bfloat16(), **options)
    for maps in (autocast, converted):
        assert maps.dtype == torch.float32
        assert (maps - exact).abs().mean() < 0.1
        # A bfloat16 has 8 bits: maps computed in it would hold a few hundred values at most.
        assert len(maps.unique()) > 1000


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

    def fail(features: Tensor) -> Tensor:
        calls.append(model.training)
        if len(calls) >= fails_at:
            raise RuntimeError("out of order")
        return forward(features)

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
        torch.testing.assert_close(get_cam(compiled, images, method=method), expected)


@pytest.mark.parametrize("method", EXPLAINERS)
@pytest.mark.parametrize("build", [zoo_model, plain_resnet])
def test_bad_images(build: Callable[[], nn.Module], method: str) -> None:
    model = build()
    nan = torch.zeros(2, 1, 64, 64)
    nan[1, 0, 3, 5] = torch.nan
    with pytest.raises(InvalidInputError, match=r"finite; images \[1\] of the batch"):
        get_cam(model, nan, method=method)
    with pytest.raises(InvalidInputError, match=r"\(B, C, H, W\); got shape \(1, 64, 64\)"):
        get_cam(model, nan[0], method=method)
    with pytest.raises(InvalidInputError, match="batch is empty"):
        get_cam(model, nan[:0], method=method)
    with pytest.raises(InvalidInputError, match=r"floating point.*got torch.uint8"):
        get_cam(model, torch.zeros(1, 1, 64, 64, dtype=torch.uint8), method=method)


def test_images_that_only_the_zoo_refuses() -> None:
    """A plain classifier may take any size and channels; a model of the zoo says what it takes."""
    images = torch.randn(1, 3, 40, 40)
    plain = timm.create_model("test_resnet", num_classes=2, in_chans=3)
    assert get_cam(plain, images, method="gradcam").shape == (1, 2, 40, 40)
    with pytest.raises(InvalidInputError, match=r"takes 1 channel\(s\); got 3"):
        get_cam(zoo_model(), images, method="gradcam")
    with pytest.raises(InvalidInputError, match="at least 64 px"):
        get_cam(zoo_model(), images[:, :1], method="gradcam")


def test_unknown_names() -> None:
    model, images = zoo_model(), torch.randn(1, 1, 64, 64)
    with pytest.raises(UnknownNameError, match="Unknown method 'grad-cam'") as caught:
        get_cam(model, images, method="grad-cam")
    assert "gradcam" in caught.value.suggestions
    with pytest.raises(UnknownNameError, match=r"Unknown layer.*named_modules\(\)") as caught:
        get_cam(model, images, method="gradcam", layer="encoder.model.layer5")
    assert "encoder.model.layer4" in caught.value.suggestions
    with pytest.raises(UnknownNameError, match=r"class index '4'.*4 classes"):
        get_cam(model, images, [CLASSES], method="gradcam")


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
