from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pylon_zoo
from pylon_zoo import preprocessing
from pylon_zoo.data import Sample
from pylon_zoo.errors import ImageReadError, InvalidInputError, RangeWarning, UnknownNameError
from pylon_zoo.preprocessing import Transform, create_transform, to_unit_range
from pylon_zoo.spec import Preprocessing

GRAY = Preprocessing(input_size=(1, 64, 96), mean=(0.5,), std=(0.25,))
RGB = Preprocessing(
    input_size=(3, 64, 64), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0), resize="native"
)


def test_values_by_hand() -> None:
    image = np.full((64, 96), 51, np.uint8)
    assert create_transform(GRAY)(image).unique().tolist() == pytest.approx([(0.2 - 0.5) / 0.25])
    color = np.zeros((70, 90, 3), np.uint8)
    color[..., 0] = 255
    read = create_transform(RGB)(color)
    assert read.shape == (3, 70, 90)
    assert read[:, 0, 0].tolist() == pytest.approx([0.9, -0.1, -0.075])


def test_all_forms_of_an_image_give_the_same_tensor(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    transform = create_transform(GRAY)
    forms = [
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        Image.fromarray(pixels),
        pixels,
        pixels[..., None],
        torch.from_numpy(pixels),
        torch.from_numpy(pixels)[None],
        torch.from_numpy(pixels)[None].float() / 255,
        Sample(image=torch.from_numpy(pixels)[None], labels=torch.zeros(0)),
    ]
    results = [r.image if isinstance(r := transform(form), Sample) else r for form in forms]
    for result in results:
        assert result.shape == (1, 64, 96)
        assert torch.equal(result, results[0])


def test_squash_resizing_agrees_with_pillow() -> None:
    pixels = np.random.default_rng(0).integers(40, 216, (20, 18), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((200, 180), Image.Resampling.BICUBIC)
    ours = create_transform(GRAY)(smooth) * 0.25 + 0.5
    theirs = np.asarray(smooth.resize((96, 64), Image.Resampling.BICUBIC)) / 255
    # Pillow rounds to 8 bits after each direction.
    assert np.abs(ours[0].numpy() - theirs).max() < 1.5 / 255


def test_boxes_follow_the_resize() -> None:
    sample = Sample(
        image=torch.zeros(1, 128, 48, dtype=torch.uint8),
        labels=torch.ones(1),
        boxes=torch.tensor([[12.0, 32.0, 24.0, 64.0]]),
        box_classes=torch.tensor([0]),
        points=torch.tensor([[12.0, 32.0]]),
        point_classes=torch.tensor([0]),
    )
    resized = create_transform(GRAY)(sample)
    assert resized.boxes.tolist() == [[24, 16, 48, 32]]
    assert resized.points.tolist() == [[24, 16]]
    assert resized.size == (128, 48)


def test_channels_are_converted() -> None:
    color = torch.zeros(3, 64, 96)
    color[1] = 1.0
    assert create_transform(GRAY)(color).unique().tolist() == pytest.approx([(0.587 - 0.5) / 0.25])
    gray = create_transform(RGB)(torch.full((1, 64, 64), 0.5))
    assert gray[:, 0, 0].tolist() == pytest.approx([0.4, 0.15, 0.05])
    with pytest.raises(InvalidInputError, match="has 4 channels, the model takes 1"):
        create_transform(GRAY)(torch.zeros(4, 64, 96))


def test_sixteen_bits() -> None:
    deep = torch.tensor([[[0, 65535]]], dtype=torch.uint16)
    assert to_unit_range(deep).flatten().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (torch.full((1, 64, 64), 2.0), r"\[0, 1\]; got 2 to 2.*255"),
        (torch.full((1, 64, 64), float("nan")), "NaN"),
        (torch.zeros(1, 64, 64, dtype=torch.int32), "int32"),
        (np.zeros((64, 64, 5), np.uint8), r"\(64, 64, 5\)"),
        (np.zeros((64, 64), np.complex64), "complex64"),
        (7, "got int"),
    ],
)
def test_bad_input(image: object, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        create_transform(GRAY)(image)  # type: ignore[arg-type]


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(ImageReadError, match=r"x\.png"):
        create_transform(GRAY)(tmp_path / "x.png")


def test_training_changes_images_and_evaluation_does_not() -> None:
    model = pylon_zoo.create_model("cam_regnetx_002", num_classes=2)
    image = torch.rand(1, 256, 256)
    evaluate, train = create_transform(model), create_transform(model, train=True)
    assert torch.equal(evaluate(image), evaluate(image))
    generator = torch.Generator().manual_seed(3)
    assert not torch.equal(train(image, generator), train(image, generator))
    with pytest.raises(UnknownNameError, match="light"):
        Transform(GRAY, "ligth")


def test_an_image_that_uses_few_of_its_bits_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preprocessing, "_warned_of_dark", False)
    twelve_bits = torch.arange(4096, dtype=torch.int32).to(torch.uint16).reshape(1, 64, 64)
    with pytest.warns(RangeWarning, match=r"0\.0625 .*nearly black.*12 of 16"):
        to_unit_range(twelve_bits)
    to_unit_range(twelve_bits)
    monkeypatch.setattr(preprocessing, "_warned_of_dark", False)
    with pytest.warns(RangeWarning, match="scan"):
        to_unit_range(torch.rand(1, 64, 64) / 257, "scan 3")
    # Neither a black image nor one that fills the range is warned of.
    monkeypatch.setattr(preprocessing, "_warned_of_dark", False)
    to_unit_range(torch.zeros(1, 64, 64))
    to_unit_range(torch.rand(1, 64, 64))
