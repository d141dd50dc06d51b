import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pylon_zoo import create_model
from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.architectures.folding import find_pairs, run_folded


def lively(name: str, **options: Any) -> LocalizationModel:
    """A model in eval mode whose batch norms do something, float64."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model


def plain_maps(model: LocalizationModel, images: Tensor) -> Tensor:
    """Without any detour: batch norms run, every feature is computed."""
    with torch.no_grad():
        maps: Tensor = model.head(model.decode(model.encoder(images)))
    return maps


def check(model: LocalizationModel, tolerance: float = 1e-12) -> None:
    images = torch.randn(2, 1, 96, 64, dtype=next(model.parameters()).dtype)
    expected = plain_maps(model, images)
    with torch.no_grad():
        logits, maps = model(images)
    assert (maps - expected).abs().max() <= tolerance * expected.abs().max()
    assert (logits - model.pooling(expected)).abs().max() <= tolerance * expected.abs().max()
    assert maps.is_contiguous()


@pytest.mark.parametrize(
    ("name", "every"),
    [
        ("pylon_test_resnet", True),
        ("pylon_regnetx_002", True),  # convolution and norm are a module of their own
        ("pylon_mobilenetv3_small_050", True),  # norm and activation are one
        ("pylon_convnext_atto", True),  # only the decoder has batch norms
        ("unet_resnet10t", True),
        ("fpn_resnet10t", True),
        ("pan_resnet10t", True),
        ("deeplabv3plus_resnet10t", True),
        ("cam_resnetv2_50", False),  # some norms come before their convolution
        ("li2018_densenet121", False),  # some convolutions have several readers
    ],
)
def test_folding_changes_nothing(name: str, every: bool) -> None:
    model = lively(name)
    check(model)
    assert model._pairs is not None
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert len(model._pairs) == norms if every else 0 < len(model._pairs) < norms


def test_batch_norm_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively("pylon_test_resnet")
    images = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    model.requires_grad_(False)
    calls: list[int] = []
    batch_norm = torch.batch_norm
    monkeypatch.setattr(torch, "batch_norm", lambda *a: calls.append(1) or batch_norm(*a))
    model(images)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert len(calls) == norms  # where the pairs were looked for
    calls.clear()
    model(images)
    assert not calls
    model.train()(torch.cat([images, images]))
    assert len(calls) == norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_single_precision_model(dtype: torch.dtype) -> None:
    check(lively("pylon_resnet10t").to(dtype), {torch.float32: 1e-5, torch.float64: 1e-12}[dtype])


def step(model: LocalizationModel) -> None:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        model(torch.randn(4, 1, 64, 64, dtype=torch.float64)).logits.square().mean().backward()
        optimizer.step()
    model.eval()


def step_in_eval(model: LocalizationModel) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(4, 1, 64, 64, dtype=torch.float64)).logits.square().mean().backward()
    optimizer.step()


def load(model: LocalizationModel) -> None:
    torch.manual_seed(7)
    model.load_state_dict({k: torch.rand_like(v, dtype=v.dtype) if v.is_floating_point() else v
                           for k, v in model.state_dict().items()})  # fmt: skip


def assign(model: LocalizationModel) -> None:
    state = {k: v + 0.1 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def behind_autograds_back(model: LocalizationModel) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.5)


def frozen_statistics(model: LocalizationModel) -> None:
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).running_var.fill_(3.0)  # type: ignore[union-attr]


def new_stem_norm(model: LocalizationModel) -> None:
    model.encoder.model.bn1 = nn.Identity()


def new_stem(model: LocalizationModel) -> None:
    conv = model.encoder.model.conv1
    model.encoder.model.conv1 = nn.Sequential(
        conv, nn.Conv2d(conv.out_channels, conv.out_channels, 1)
    )
    model.double()


def new_head(model: LocalizationModel) -> None:
    model.reset_classifier(5)


@pytest.mark.parametrize(
    "change",
    [
        step,
        step_in_eval,
        load,
        assign,
        behind_autograds_back,
        frozen_statistics,
        new_stem_norm,
        new_stem,
        new_head,
    ],
)
def test_whatever_happens_to_the_network(change: Callable[[LocalizationModel], None]) -> None:
    model = lively("pylon_resnet18")
    check(model)
    change(model)
    check(model)
    check(copy.deepcopy(model))


def test_a_network_that_is_wired_otherwise() -> None:
    model = lively("pylon_test_resnet")
    check(model)
    up = model.ups[0].skip[1]
    # The output of this convolution now has a second reader.
    up.forward = lambda x: up.relu(up.bn(up.conv(x)) + up.conv(x))
    check(model)
    check(model)
    assert model._pairs is not None
    assert "ups.0.skip.1.conv" not in {pair.conv for pair in model._pairs}


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.shared, self.bn1, self.bn2 = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.reshaped, self.bn3 = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.bn(x) + x.mean()
        x = self.bn1(self.shared(x)) + self.bn2(self.shared(x))
        x = self.reshaped(x)
        return self.bn3(x.flip(-1)) if x.shape[0] else x


def test_only_what_one_norm_alone_reads_is_a_pair() -> None:
    network = TwoReaders().eval()
    images = torch.randn(1, 1, 8, 8)
    assert find_pairs(network, lambda: network(images)) == ()
    expected = network(images)
    assert torch.equal(run_folded(network, (), lambda: network(images)), expected)


def test_a_norm_in_train_mode_is_not_folded() -> None:
    model = lively("pylon_test_resnet").requires_grad_(False)
    images = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    model(images)
    norm = model.encoder.get_submodule("model.bn1")
    norm.train()
    before = norm.running_mean.clone()
    maps = model(images).maps
    assert not torch.equal(norm.running_mean, before)
    norm.running_mean.copy_(before)
    expected = model.class_maps(model.encoder(images))
    torch.testing.assert_close(maps, expected, rtol=1e-12, atol=1e-12)


def test_hooks_see_what_they_always_saw() -> None:
    model = lively("pylon_resnet18").requires_grad_(False)
    images = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    for name in ("layer1.0.conv1", "layer1.0.bn1", "layer2.0.downsample.0", "layer3"):
        module = model.encoder.model.get_submodule(name)
        seen: list[Tensor] = []
        handle = module.register_forward_hook(
            lambda _, inputs, output, seen=seen: seen.extend([inputs[0].clone(), output.clone()])
        )
        model(images)
        model.class_maps(model.encoder(images))
        handle.remove()
        assert len(seen) == 4
        for folded, plain in zip(seen[:2], seen[2:], strict=True):
            torch.testing.assert_close(folded, plain, rtol=1e-12, atol=1e-12)


def test_gradients_of_images() -> None:
    model = lively("pylon_test_resnet").requires_grad_(False)
    gradients = []
    for run in (model, lambda x: (None, model.head(model.decode(model.encoder(x))))):
        images = torch.linspace(-1, 1, 2 * 64 * 64, dtype=torch.float64).view(2, 1, 64, 64)
        maps = run(images.requires_grad_())[1]
        gradients.append(torch.autograd.grad(maps.square().mean(), images)[0])
    assert model._pairs is not None
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_what_learns_is_the_plain_network() -> None:
    model = lively("pylon_test_resnet")
    images = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    maps = model(images).maps
    assert model._pairs is None
    assert torch.equal(maps, model.class_maps(model.encoder(images)))
    maps.square().mean().backward()
    assert all(p.grad is not None and p.grad.is_contiguous() for p in model.parameters())


def test_nothing_of_it_is_state() -> None:
    model = lively("pylon_test_resnet").requires_grad_(False)
    keys, random = list(model.state_dict()), torch.get_rng_state()
    state = copy.deepcopy(model.state_dict())
    model(torch.randn(1, 1, 64, 64, dtype=torch.float64, generator=torch.Generator()))
    assert list(model.state_dict()) == keys
    assert all(
        torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), random)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    check(torch.load(buffer, weights_only=False))


def test_the_first_call_gives_what_the_next_ones_give() -> None:
    model = lively("pylon_regnetx_002").float().requires_grad_(False)
    images = torch.randn(1, 1, 64, 64)
    assert torch.equal(model(images).maps, model(images).maps)


def test_nothing_is_folded_under_autocast() -> None:
    model = lively("pylon_resnet10t").float()
    images = torch.randn(2, 1, 64, 64).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        maps = model(images).maps
        expected = model.class_maps(model.encoder(images)).float()
    assert model._pairs is None
    torch.testing.assert_close(maps, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))


def test_inference_mode_and_channels_last() -> None:
    model = lively("pylon_resnet10t").to(memory_format=torch.channels_last)
    images = torch.randn(2, 1, 64, 96, dtype=torch.float64)
    expected = plain_maps(model, images)
    with torch.inference_mode():
        maps = model(images.contiguous(memory_format=torch.channels_last)).maps
    torch.testing.assert_close(maps, expected, rtol=1e-11, atol=1e-11)


def test_features_lie_channels_last() -> None:
    model = lively("pylon_test_resnet").requires_grad_(False)
    seen: list[Tensor] = []
    handle = model.encoder.register_forward_hook(lambda _, inputs, out: seen.extend(out.values()))
    model(torch.randn(2, 1, 64, 96, dtype=torch.float64))
    handle.remove()
    assert not any(feature.is_contiguous() for feature in seen[-4:])


def test_a_compiled_network_is_the_plain_one() -> None:
    model = lively("pylon_test_resnet").float()
    images = torch.randn(2, 1, 64, 64)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        maps = compiled(images).maps
    assert model._pairs is None
    torch.testing.assert_close(maps, plain_maps(model, images), rtol=1e-4, atol=1e-5)
