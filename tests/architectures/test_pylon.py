from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures.base import ArchitectureTester

from pylon_zoo import create_model
from pylon_zoo.errors import InvalidOptionError


class TestPYLON(ArchitectureTester):
    architecture = "pylon"
    params = (
        ({}, 25_478_741),
        ({"up_layers": 1}, 24_097_109),
        ({"pyramid_attention": False}, 25_378_254),
        ({"num_up": 2}, 25_379_285),
        ({"num_up": 1}, 25_049_685),
    )


def test_without_decoder_and_attention_it_is_a_projected_cam() -> None:
    model = create_model("pylon_test_resnet", num_up=0, pyramid_attention=False).eval()
    assert model.map_stride == 32
    images = torch.randn(1, 1, 96, 64)
    with torch.no_grad():
        deepest = model.encoder(images)[32]
        expected = model.head(model.attention(deepest))
        torch.testing.assert_close(model(images).maps, expected, rtol=1e-5, atol=1e-6)
    assert model(images).maps.shape[2:] == (3, 2)


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


@pytest.mark.parametrize(
    "options", [{}, {"num_up": 1}, {"pyramid_attention": False}, {"num_up": 0}]
)
def test_projecting_before_upsampling_changes_nothing(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = create_model("pylon_regnetx_002", num_classes=5, **options).double().eval()
    torch.nn.init.normal_(model.head.bias)
    images = torch.randn(2, 1, 160, 224, dtype=torch.float64)
    with torch.no_grad():
        fast = model(images)
        features = model.encoder(images)
        plain = model.head(model.decode(features))
        # A hook on the decoder gets to see the feature that it asks for.
        seen: list[torch.Tensor] = []
        hook = model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        hooked = model(images)
        hook.remove()
    assert torch.allclose(fast.maps, plain, rtol=1e-12, atol=1e-12)
    assert torch.allclose(hooked.maps, plain, rtol=1e-12, atol=1e-12)
    assert torch.allclose(seen[0], model.decode(features), rtol=1e-12, atol=1e-12)
    assert len(seen) == 1
