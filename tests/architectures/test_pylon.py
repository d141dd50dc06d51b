from __future__ import annotations

from typing import Any

import pytest
import torch

from pylon_zoo import create_model
from pylon_zoo.errors import InvalidOptionError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 25_478_741),
        ({"up_layers": 1}, 24_097_109),
        ({"pyramid_attention": False}, 25_378_254),
        ({"num_up": 2}, 25_379_285),
        ({"num_up": 1}, 25_049_685),
    ],
)
def test_published_parameter_counts(options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        model = create_model("pylon_resnet50", in_chans=1, num_classes=14, **options)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("num_up", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(64, 64), (65, 310), (256, 128)])
def test_any_size_gives_maps_at_the_stride(num_up: int, size: tuple[int, int]) -> None:
    model = create_model("pylon_test_resnet", num_up=num_up).eval()
    assert model.map_stride == 32 >> num_up
    with torch.no_grad():
        output = model(torch.randn(1, 1, *size))
    assert output.maps.shape[-2:] == tuple(-(-side // model.map_stride) for side in size)
    assert output.maps.isfinite().all()


def test_wide_kernels_keep_the_size() -> None:
    model = create_model(
        "pylon_test_resnet", up_kernel_size=3, head_kernel_size=5, decoder_channels=24
    )
    assert model(torch.randn(2, 1, 64, 64)).maps.shape == (2, 14, 16, 16)
    assert model.head.in_channels == 24
    assert model.ups[0].skip[1].conv.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_up": 4}, "num_up must be 0, 1, 2 or 3; got 4"),
        ({"up_layers": 0}, "up_layers must be 1 or 2; got 0"),
        ({"up_kernel_size": 2}, "up_kernel_size must be odd; got 2"),
        ({"head_kernel_size": -1}, "head_kernel_size must be odd; got -1"),
        ({"decoder_channels": 0}, "decoder_channels must be positive; got 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        create_model("pylon_test_resnet", **options)
