"""The contract of every model: what it takes, refuses and returns, and what its output survives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pylon_zoo import LocalizationModel, LocalizationOutput, create_model
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, PylonZooError


@pytest.fixture
def model() -> LocalizationModel:
    return create_model("pylon_test_resnet", num_classes=3, in_chans=1).eval()


def test_output_is_a_named_tuple_of_maps_and_their_pooling(model: LocalizationModel) -> None:
    images = torch.randn(2, 1, 64, 96)
    output = model(images)
    assert isinstance(output, LocalizationOutput)
    assert output.maps.shape == (2, 3, 16, 24)
    assert torch.equal(output.logits, output.maps.flatten(2).max(-1).values)
    decoded = model.decode(model.encoder(images))
    torch.testing.assert_close(output.maps, model.head(decoded))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 64, 64), r"\(B, C, H, W\); got shape \(1, 64, 64\).*images\[None\]"),
        (torch.zeros(64, 64), r"\(B, C, H, W\); got shape \(64, 64\)"),
        (torch.zeros(0, 1, 64, 64), "batch is empty"),
        (torch.zeros(1, 3, 64, 64), r"takes 1 channel\(s\); got 3 .*in_chans=3"),
        (torch.zeros(1, 1, 63, 64), "at least 64 px on each side; got 63 x 64"),
        (torch.zeros(1, 1, 64, 20), "at least 64 px on each side; got 64 x 20"),
        (torch.zeros(1, 1, 64, 64, dtype=torch.uint8), "floating point.*got torch.uint8"),
    ],
)
def test_bad_images(model: LocalizationModel, images: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        model(images)
    assert isinstance(caught.value, (PylonZooError, ValueError))


def test_maps_are_float32_under_autocast_and_float64_in_float64(model: LocalizationModel) -> None:
    images = torch.randn(1, 1, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(images)
    assert output.maps.dtype == output.logits.dtype == torch.float32
    assert torch.equal(output.logits, output.maps.amax((-2, -1)))
    with torch.no_grad():
        output = model.bfloat16()(images.bfloat16())
        assert output.maps.dtype == torch.float32
        output = model.double()(images.double())
        assert output.maps.dtype == output.logits.dtype == torch.float64


def test_reset_classifier(model: LocalizationModel) -> None:
    old = model.head
    model.double().reset_classifier(2, ("a", "b"))
    assert model.num_classes == model.spec.num_classes == 2
    assert model.spec.class_names == ("a", "b")
    assert model.head.weight.dtype == torch.float64
    assert model.head.kernel_size == old.kernel_size
    assert not model.head.training
    assert torch.equal(model.head.bias, torch.zeros(2))
    assert model(torch.randn(1, 1, 64, 64).double()).maps.shape[1] == 2
    with pytest.raises(InvalidOptionError, match="at least 1; got 0"):
        model.reset_classifier(0)
    with pytest.raises(InvalidOptionError, match="2 names, but num_classes is 3"):
        model.reset_classifier(3, ("a", "b"))
    assert model.num_classes == 2


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group(
        "gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_output_survives_ddp(model: LocalizationModel) -> None:
    images = torch.randn(2, 1, 64, 64)
    expected = model(images)
    wrapped = DistributedDataParallel(model)
    # The second step fails if the first left a parameter without gradient.
    for _ in range(2):
        output = wrapped(images)
        assert isinstance(output, LocalizationOutput)
        torch.testing.assert_close(output, expected)
        output.logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_survives_module_surgery(model: LocalizationModel) -> None:
    """A copy by state dict computes the same; nothing is kept outside the modules."""
    copy = create_model("pylon_test_resnet", num_classes=3, in_chans=1).eval()
    copy.load_state_dict(model.state_dict())
    images = torch.randn(1, 1, 70, 90)
    assert torch.equal(copy(images).maps, model(images).maps)
    assert isinstance(model.pooling, nn.Module)
