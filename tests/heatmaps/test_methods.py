"""The methods against the grad-cam package and against what they must give."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam
import timm
import torch
import torch.nn.functional as F
from heatmaps_helpers import CLASSES, plain_resnet, zoo_model
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from pylon_zoo import create_model, get_cam
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, UnknownNameError
from pylon_zoo.heatmaps import methods

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
