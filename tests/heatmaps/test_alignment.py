"""Where cells lie: measured offsets against known ones, and peaks against a blob's true place."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pylon_zoo import create_model, find_peaks, get_cam
from pylon_zoo.errors import InvalidOptionError, UnknownNameError
from pylon_zoo.heatmaps import receptive_field_offset, resize_maps
from pylon_zoo.heatmaps.alignment import _place, _step


@pytest.mark.parametrize(
    ("encoder", "stride", "expected", "img_size"),
    [
        # Padded convolutions and poolings of odd size look at i * stride.
        ("resnet18", 32, 0, None),
        ("regnetx_002", 4, 0, None),
        ("regnetx_002", 16, 0, None),
        ("regnetx_002", 32, 0, None),
        # What cuts the image, or the level before, into patches looks at their centres.
        ("convnext_atto", 4, 1.5, None),
        ("convnext_atto", 32, 15.5, None),
        ("swin_tiny_patch4_window7_224", 16, 7.5, (112, 112)),
        # Convolutions of stride 1, 2 x 2 poolings between them.
        ("vgg11", 32, 15.5, None),
    ],
)
def test_offsets_that_are_known(
    encoder: str, stride: int, expected: float, img_size: tuple[int, int] | None
) -> None:
    assert receptive_field_offset(encoder, stride, img_size) == pytest.approx(expected, abs=0.75)


def test_measuring_disturbs_nothing() -> None:
    receptive_field_offset.cache_clear()
    state = torch.get_rng_state()
    with torch.inference_mode():
        first = receptive_field_offset("test_resnet", 8)
    assert torch.equal(torch.get_rng_state(), state)
    receptive_field_offset.cache_clear()
    torch.manual_seed(99)
    assert receptive_field_offset("test_resnet", 8) == first


def test_corners_false_is_the_usual_resizing() -> None:
    model = create_model("cam_test_resnet", num_classes=2)
    maps = torch.randn(2, 2, 3, 5)
    expected = F.interpolate(maps, size=(96, 150), mode="bilinear", align_corners=False)
    assert torch.equal(resize_maps(maps, model, (96, 160), (96, 150)), expected)
    with pytest.raises(UnknownNameError, match="Unknown alignment 'receptive_feild'") as caught:
        resize_maps(maps, model, (96, 160), (96, 150), "receptive_feild")
    assert caught.value.suggestions[0] == "receptive_field"


@pytest.mark.parametrize("offset", [0.0, 15.5])
@pytest.mark.parametrize("size", [(96, 160), (192, 80)])
def test_cells_land_where_they_look(offset: float, size: tuple[int, int]) -> None:
    """A map of its cells' own positions becomes the positions of the pixels."""
    y = offset + 32 * torch.arange(3.0).double()
    x = offset + 32 * torch.arange(5.0).double()
    maps = torch.stack([y[:, None].expand(3, 5), x.expand(3, 5)])[None]
    placed = _place(maps, offset, (32, 32), (96, 160), size)[0]
    # Pixel centres of the result in pixels of the image; constant beyond the outermost cells.
    rows = (torch.arange(size[0]).double() + 0.5) * 96 / size[0] - 0.5
    columns = (torch.arange(size[1]).double() + 0.5) * 160 / size[1] - 0.5
    rows, columns = rows.clamp(offset, offset + 64), columns.clamp(offset, offset + 128)
    torch.testing.assert_close(placed[0], rows[:, None].expand(size))
    torch.testing.assert_close(placed[1], columns.expand(size))


def test_half_a_cell_is_what_corners_false_assumes() -> None:
    maps = torch.randn(1, 2, 3, 5).double()
    usual = F.interpolate(maps, size=(96, 160), mode="bilinear", align_corners=False)
    torch.testing.assert_close(_place(maps, 15.5, (32, 32), (96, 160), (96, 160)), usual)


def test_steps() -> None:
    assert _step(8, 256) == 32
    assert _step(8, 225) == 32  # a padded convolution rounds up
    assert _step(7, 225) == 32  # a patch's rounds down
    assert _step(225, 225) == 1
    assert _step(20, 256) == 12.8  # a map that was resized


def blobs(centres: Tensor, size: int) -> Tensor:
    """(N, 2) y, x -> (N, 1, size, size) images of one bright blob of 3 x 3 pixels each."""
    distance = (torch.arange(size) - centres[..., None]).abs()
    lit = distance.le(1).float()
    return (lit[:, 0, :, None] * lit[:, 1, None, :])[:, None]


def positive(model: nn.Module) -> nn.Module:
    """Every convolution averages, so that a cell answers to light within its field of view."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
            module.weight.data /= module.weight[0].numel()
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return model.eval()


#: Blobs at every eighth pixel of a whole cell of 32 px, far from the borders.
CENTRES = torch.arange(116, 144, 8)[:, None].expand(-1, 2)


def displacement(maps: Tensor) -> float:
    """Mean signed distance in pixels, over both axes, of the maps' peaks from the blobs."""
    return float((find_peaks(maps).xy[:, 0].flip(-1) - CENTRES).double().mean())


def test_blob_is_found_by_a_model_of_the_zoo() -> None:
    """Which of its cells answers most cannot tell where in the cell the blob is; that averages out.

    A ResNet's cells look at i * 32; corners_false takes them for 15.5 px further down and right.
    """
    model = positive(create_model("cam_resnet18", num_classes=1, in_chans=1))
    images = blobs(CENTRES, 256)
    for method in ("native", "gradcam"):
        aligned = get_cam(model, images, alignment="receptive_field", method=method)
        assert displacement(aligned) == pytest.approx(0, abs=1.5)
        usual = get_cam(model, images, method=method)
        assert displacement(usual) == pytest.approx(15.5, abs=1.5)


def test_a_blob_where_a_cell_looks_is_hit() -> None:
    model = positive(create_model("cam_resnet18", num_classes=1, in_chans=1))
    centres = torch.tensor([[96, 128], [160, 64]])
    images = blobs(centres, 256)
    aligned = find_peaks(get_cam(model, images, alignment="receptive_field")).xy[:, 0].flip(-1)
    usual = find_peaks(get_cam(model, images)).xy[:, 0].flip(-1)
    assert (aligned - centres).abs().max() <= 1
    assert (usual - centres).abs().min() >= 15


class Plain(nn.Module):
    """A classifier of somebody else's: five convolutions of stride 2."""

    def __init__(self, kernel_size: int, padding: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 1, kernel_size, stride=2, padding=padding) for _ in range(5))
        )
        self.fc = nn.Linear(1, 1)
        nn.init.ones_(self.fc.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).mean((2, 3)))


@pytest.mark.parametrize(
    ("kernel_size", "padding", "corners_false"),
    # Of the last one, unpadded, cell i looks at 31 + 32 i: there are fewer cells than in the image.
    [(3, 1, 15.5), (2, 0, 0), (3, 0, None)],
)
def test_blob_is_found_by_a_plain_classifier(
    kernel_size: int, padding: int, corners_false: float | None
) -> None:
    model = positive(Plain(kernel_size, padding))
    images = blobs(CENTRES, 256)
    maps = get_cam(model, images, alignment="receptive_field", method="gradcam")
    assert displacement(maps) == pytest.approx(0, abs=1.5)
    # The peak is half a cell from the blob at most, plus what the measurement is off.
    assert (find_peaks(maps).xy[:, 0].flip(-1) - CENTRES).abs().max() <= 17
    if corners_false is not None:
        usual = get_cam(model, images, method="gradcam")
        assert displacement(usual) == pytest.approx(corners_false, abs=1.5)


def test_any_layer_of_a_model_of_the_zoo_is_measured() -> None:
    """At stride 16 of a ResNet cells look at 16 i."""
    model = positive(create_model("cam_resnet18", num_classes=1, in_chans=1))
    images = blobs(CENTRES, 256)
    options = {"method": "gradcam", "layer": "encoder.model.layer3"}
    aligned = get_cam(model, images, alignment="receptive_field", **options)
    assert displacement(aligned) == pytest.approx(0, abs=1.5)
    assert displacement(get_cam(model, images, **options)) == pytest.approx(7.5, abs=1.5)


def test_a_layer_that_sees_nothing_cannot_be_placed() -> None:
    model = positive(Plain(3, 1))
    nn.init.zeros_(model.features[2].weight)
    images = torch.rand(1, 1, 64, 64)
    with pytest.raises(InvalidOptionError, match=r"could not be measured.*corners_false"):
        get_cam(model, images, alignment="receptive_field", method="gradcam")
