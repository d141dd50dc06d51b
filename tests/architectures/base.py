"""One tester for every architecture: subclass it, name the architecture, and it is tested.

The checks are plain functions, so that the matrix of all encoder families runs the same ones.
"""

from __future__ import annotations

import io
import math
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pylon_zoo import LocalizationModel, LocalizationOutput, create_model
from pylon_zoo.encoders import survey
from pylon_zoo.registry import OUTPUT_STRIDES

Options = dict[str, Any]

#: Tiny encoders that differ in what matters: with and without stride 2; NCHW and NHWC; made of
#: convolutions and of attention, the latter bound to one size.
TINY_ENCODERS = (
    "test_resnet",
    "test_convnext",
    "test_mambaout",
    "test_efficientnet",
    "test_coatnet",
)

ODD_SIZE = (225, 310)


def encoder_options(architecture: str, encoder: str) -> Options:
    """What an encoder needs to serve an architecture."""
    undilated = not survey()["encoders"][encoder]["dilates"]
    return {"output_stride": 32} if architecture in OUTPUT_STRIDES and undilated else {}


def images_for(
    model: LocalizationModel, batch: int = 2, size: tuple[int, int] = (128, 96)
) -> Tensor:
    """Random images of that size, or of the nearest one that the encoder takes."""
    size = model.encoder.nearest_size(*size)
    return torch.randn(
        batch, model.encoder.in_chans, *size, generator=torch.Generator().manual_seed(0)
    )


def check_output(model: LocalizationModel, images: Tensor) -> LocalizationOutput:
    """Maps of the right shape and dtype, and logits that are pooled from them."""
    with torch.no_grad():
        output = model.eval()(images)
    assert isinstance(output, LocalizationOutput)
    assert output.maps.shape[:2] == (len(images), model.num_classes)
    assert output.maps.isfinite().all()
    assert torch.equal(output.logits, model.pooling(output.maps))
    size = images.shape[2:]
    steps = model.map_steps((size[0], size[1]))
    for cells, step, side in zip(output.maps.shape[2:], steps, size, strict=True):
        # The cells' centres span the image; families that cut it into patches round down.
        span = step * (cells - 1)
        assert side - 2 * model.map_stride < span < side
    return output


def check_backward(model: LocalizationModel, images: Tensor) -> None:
    """A training step reaches every parameter, with finite gradients."""
    logits, _ = model.train()(images)
    targets = (torch.arange(logits.numel()) % 2).view_as(logits).to(logits)
    F.binary_cross_entropy_with_logits(logits, targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"{name} has infinite gradients"
    model.zero_grad()


def check_saved_copy(model: LocalizationModel, images: Tensor) -> None:
    """A new model with the saved state computes exactly the same."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    spec = model.spec
    copy = create_model(
        spec.name, num_classes=spec.num_classes, in_chans=spec.in_chans, **spec.options
    )
    copy.load_state_dict(torch.load(buffer, weights_only=True))
    with torch.no_grad():
        output, expected = copy.eval()(images), model.eval()(images)
    assert torch.equal(output.maps, expected.maps)
    assert torch.equal(output.logits, expected.logits)


def check_autocast(model: LocalizationModel, images: Tensor) -> None:
    """Under bfloat16 autocast the maps are float32 and pooled as such."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model.eval()(images)
    assert output.maps.dtype == output.logits.dtype == torch.float32
    assert torch.equal(output.logits, model.pooling(output.maps))
    with torch.no_grad():
        expected = model(images)
    # bfloat16 has 8 bits; errors add up over layers.
    error = (output.maps - expected.maps).abs().max() / expected.maps.abs().max()
    assert error < 0.2


def check_export(model: LocalizationModel, images: Tensor) -> None:
    """The exported program takes another batch size and computes the same."""
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model.eval(), (images,), dynamic_shapes=({0: batch},))
    more = torch.cat([images, images.flip(-1)])[:3]
    with torch.no_grad():
        output, expected = program.module()(more), model(more)
    assert isinstance(output, LocalizationOutput)
    scale = expected.maps.abs().max().item()
    torch.testing.assert_close(output.maps, expected.maps, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=1e-5 * scale)


class ArchitectureTester:
    """Subclass it with a name that begins with ``Test``.

    Attributes:
        architecture: its name in the registry.
        params: (options, parameters with a ResNet-50 encoder, 1 channel, 14 classes) of each of
            its variants.
    """

    architecture: ClassVar[str]
    params: ClassVar[tuple[tuple[Options, int], ...]]

    def create(self, encoder: str = "test_resnet", **options: Any) -> LocalizationModel:
        torch.manual_seed(0)
        return create_model(f"{self.architecture}_{encoder}", num_classes=3, **options)

    def variants(self) -> list[LocalizationModel]:
        return [self.create(**options) for options, _ in self.params]

    def map_size(self, model: LocalizationModel, height: int, width: int) -> tuple[int, int]:
        return math.ceil(height / model.map_stride), math.ceil(width / model.map_stride)

    def test_parameter_counts(self) -> None:
        for options, expected in self.params:
            with torch.device("meta"):
                model = create_model(f"{self.architecture}_resnet50", **options)
            assert sum(p.numel() for p in model.parameters()) == expected, options

    @pytest.mark.parametrize("encoder", TINY_ENCODERS)
    def test_encoders(self, encoder: str) -> None:
        model = self.create(encoder, **encoder_options(self.architecture, encoder))
        check_output(model, images_for(model))
        check_backward(model, images_for(model))

    def test_variants(self) -> None:
        for model in self.variants():
            check_output(model, images_for(model))
            check_backward(model, images_for(model))
            check_saved_copy(model, images_for(model))
            check_autocast(model, images_for(model))

    @pytest.mark.parametrize("size", [ODD_SIZE, (64, 64), (65, 200)])
    def test_any_size(self, size: tuple[int, int]) -> None:
        for model in self.variants():
            output = check_output(model, images_for(model, size=size))
            assert output.maps.shape[2:] == self.map_size(model, *size)

    @pytest.mark.parametrize("in_chans", [1, 3, 5])
    def test_channels(self, in_chans: int) -> None:
        model = self.create(in_chans=in_chans)
        check_output(model, images_for(model))

    def test_export(self) -> None:
        for model in self.variants():
            check_export(model, images_for(model))

    def test_compile_without_graph_breaks(self) -> None:
        model = self.create().eval()
        images = images_for(model)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            output, expected = compiled(images), model(images)
        assert isinstance(output, LocalizationOutput)
        torch.testing.assert_close(output, expected)
