import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pylon_zoo.data import count_frames, find_images, read_image
from pylon_zoo.errors import ImageReadError

GRAY = np.arange(80 * 70, dtype=np.uint32).reshape(80, 70)
RGB = np.stack([GRAY % 256, GRAY % 97, GRAY % 31], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_gray_and_rgb_pixels_come_back(tmp_path: Path, suffix: str) -> None:
    gray = (GRAY % 256).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / f"gray.{suffix}")
    Image.fromarray(RGB).save(tmp_path / f"rgb.{suffix}")
    read = read_image(tmp_path / f"gray.{suffix}")
    assert torch.equal(read, torch.from_numpy(gray)[None])
    read = read_image(tmp_path / f"rgb.{suffix}")
    assert torch.equal(read, torch.from_numpy(RGB).permute(2, 0, 1))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path, suffix: str) -> None:
    deep = (GRAY * 11).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
    read = read_image(tmp_path / f"deep.{suffix}")
    assert read.dtype == torch.uint16
    assert np.array_equal(read[0].numpy(), deep)


def test_palette_transparency_cmyk_and_bilevel(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("P").save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (3, 80, 70)
    rgba = np.dstack([RGB, np.zeros((80, 70), np.uint8)])
    rgba[:40, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    read = read_image(tmp_path / "rgba.png")
    assert torch.equal(read[:, :40], torch.from_numpy(RGB[:40]).permute(2, 0, 1))
    assert (read[:, 40:] == 0).all()
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert (
        read_image(tmp_path / "cmyk.tif").int() - torch.from_numpy(RGB).permute(2, 0, 1)
    ).abs().max() <= 1
    Image.fromarray(GRAY % 2 == 0).save(tmp_path / "bilevel.png")
    assert set(read_image(tmp_path / "bilevel.png").unique().tolist()) == {0, 255}


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((80, 70), 128, np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (1, 70, 80)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("not an image")
    with pytest.raises(ImageReadError, match=re.escape(str(text)) + ".*no image"):
        read_image(text)
    with pytest.raises(ImageReadError, match=r"missing\.png.*no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageReadError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, part: float) -> None:
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(RGB).save(whole)
    cut = tmp_path / f"cut.{suffix}"
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageReadError, match=re.escape(str(cut))):
        read_image(cut)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    with pytest.raises(ImageReadError, match=r"bomb\.png"):
        read_image(bomb)


def test_frames_are_counted(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (1, 2, 3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    counts = [count_frames(tmp_path / name) for name in ("a.tif", "b.png", "c.png", "none")]
    assert counts == [3, 1, 1, 1]
    assert [int(read_image(tmp_path / "a.tif", i)[0, 0, 0]) for i in range(3)] == [1, 2, 3]


def test_find_images(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "deep/a.jpeg", "notes.txt"):
        (tmp_path / name).touch()
    dicom = tmp_path / "deep" / "IM 1.2"
    for name in (dicom, tmp_path / "DICOMDIR"):
        name.write_bytes(bytes(128) + b"DICM")
    expected = [tmp_path / "b.PNG", dicom, tmp_path / "deep" / "a.jpeg"]
    assert find_images(tmp_path) == expected
    with pytest.raises(ImageReadError, match="no such folder"):
        find_images(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageReadError, match="holds no image"):
        find_images(tmp_path / "empty")
