"""The front door, and the maps that models make themselves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pylon_zoo import LocalizationModel, create_model, find_peaks, get_cam
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, UnknownNameError
from pylon_zoo.heatmaps.cam import class_indices

NAMES = ("Atelectasis", "Effusion", "Mass")


@pytest.fixture
def model() -> LocalizationModel:
    return create_model("pylon_test_resnet", class_names=NAMES, in_chans=1)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 1, 64, 96)


def test_native_maps_are_the_models(model: LocalizationModel, images: torch.Tensor) -> None:
    with torch.no_grad():
        output = model.eval()(images)
    model.train()
    maps = get_cam(model, images, size="map")
    assert torch.equal(maps, output.maps)
    assert torch.equal(find_peaks(maps).score, output.logits)
    resized = F.interpolate(output.maps, size=(64, 96), mode="bilinear", align_corners=False)
    assert torch.equal(get_cam(model, images), resized)
    wide = F.interpolate(output.maps, size=(50, 301), mode="bilinear", align_corners=False)
    assert torch.equal(get_cam(model, images, size=(50, 301)), wide)
    aligned = get_cam(model, images, size="map", alignment="receptive_field")
    assert torch.equal(aligned, output.maps)


def test_modules_keep_their_own_modes(model: LocalizationModel, images: torch.Tensor) -> None:
    model.train()
    model.encoder.eval()
    modes = [module.training for module in model.modules()]
    statistics = model.ups[0].skip[0].bn.running_mean.clone()
    get_cam(model, images)
    with pytest.raises(UnknownNameError):
        get_cam(model, images, ["Nodule"])
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.ups[0].skip[0].bn.running_mean, statistics)


def test_dtypes(model: LocalizationModel, images: torch.Tensor) -> None:
    assert get_cam(model.double(), images.double()).dtype == torch.float64
    for alignment in ("corners_false", "receptive_field"):
        maps = get_cam(model.bfloat16(), images.bfloat16(), alignment=alignment)
        assert maps.dtype == torch.float32
    model.float()
    exact = get_cam(model, images, alignment="receptive_field")
    with torch.autocast("cpu", torch.bfloat16):
        maps = get_cam(model, images, alignment="receptive_field")
    assert maps.dtype == torch.float32
    assert (maps - exact).abs().max() < 0.1 * exact.abs().max()


def test_classes_by_name_and_index(model: LocalizationModel, images: torch.Tensor) -> None:
    maps = get_cam(model, images)
    for classes, indices in ((["Mass", 0, -2], [2, 0, 1]), ("Mass", [2]), (1, [1])):
        torch.testing.assert_close(get_cam(model, images, classes), maps[:, indices])
    explained = get_cam(model, images, method="gradcam")
    torch.testing.assert_close(get_cam(model, images, ["Mass"], method="gradcam"), explained[:, 2:])


def test_classes_that_do_not_exist(model: LocalizationModel, images: torch.Tensor) -> None:
    with pytest.raises(UnknownNameError, match="Unknown class 'effusions'") as caught:
        get_cam(model, images, ["effusions"])
    assert caught.value.suggestions[0] == "Effusion"
    for index in (3, -4):
        with pytest.raises(UnknownNameError, match=f"'{index}'.*has 3 classes, from 0"):
            get_cam(model, images, [index])
    with pytest.raises(InvalidInputError, match="No class was asked for"):
        get_cam(model, images, [])
    with pytest.raises(UnknownNameError, match="2 classes have no names; use indices"):
        class_indices(nn.Linear(1, 2), ["Mass"], 2)


def test_bad_images(model: LocalizationModel, images: torch.Tensor) -> None:
    for value in (torch.nan, torch.inf, -torch.inf):
        images[1, 0, 3, 4] = value
        with pytest.raises(InvalidInputError, match=r"images \[1\] of the batch hold NaN or inf"):
            get_cam(model, images)
    with pytest.raises(InvalidInputError, match=r"got shape \(64, 96\)"):
        get_cam(model, images[0, 0])
    with pytest.raises(InvalidInputError, match="floating point"):
        get_cam(model, images.isnan())


@pytest.mark.parametrize("size", ["inputs", (64,), (0, 64), (1, 2, 3)])
@pytest.mark.parametrize("method", ["native", "gradcam"])
def test_bad_sizes(
    model: LocalizationModel, images: torch.Tensor, size: str | tuple[int, ...], method: str
) -> None:
    with pytest.raises(InvalidOptionError, match=r'size is "input", "map" or \(height, width\)'):
        get_cam(model, images, size=size, method=method)


def test_bad_names_are_refused_before_the_model_runs(
    model: LocalizationModel, images: torch.Tensor
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("it ran")

    model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="it ran"):
        get_cam(model, images)
    with pytest.raises(UnknownNameError, match="Did you mean 'corners_false'"):
        get_cam(model, images, alignment="corner_false")
    with pytest.raises(UnknownNameError, match="Did you mean 'scorecam'"):
        get_cam(model, images, method="score_cam")


@pytest.mark.parametrize("method", ["native", "layercam"])
def test_normalized_maps(model: LocalizationModel, images: torch.Tensor, method: str) -> None:
    raw = get_cam(model, images, method=method)
    maps = get_cam(model, images, method=method, normalize=True)
    assert torch.equal(maps.amin((-2, -1)), torch.zeros(2, 3))
    assert torch.equal(maps.amax((-2, -1)), torch.ones(2, 3))
    low, high = raw.amin((-2, -1), keepdim=True), raw.amax((-2, -1), keepdim=True)
    torch.testing.assert_close(maps * (high - low) + low, raw)
    nn.init.zeros_(model.head.weight)
    assert not get_cam(model, images, method=method, normalize=True).any()
