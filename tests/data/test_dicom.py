import builtins
import re
import traceback
from pathlib import Path
from typing import Any

import fake_dicom
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from pylon_zoo.data import dicom as module
from pylon_zoo.data import find_images, read_image
from pylon_zoo.errors import ImageReadError, MissingExtraError, PylonZooError

RAMP = np.arange(64 * 70, dtype=np.uint16).reshape(64, 70)


def unit(image: torch.Tensor) -> np.ndarray:
    assert image.dtype == torch.uint16
    return image[0].numpy() / 65535


def assert_close(image: torch.Tensor, expected: np.ndarray) -> None:
    assert np.abs(unit(image) - expected.clip(0, 1)).max() < 1e-5


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, RAMP / RAMP.max()),
        # PS3.3 C.11.2.1.2.1: the ends of the window are c - 0.5 -+ (w - 1) / 2.
        (
            {"WindowCenter": 2000, "WindowWidth": 1001},
            (1.0 * RAMP - (1999.5 - 500)) / 1000,
        ),
        (
            {
                "WindowCenter": [2000, 50],
                "WindowWidth": [1000, 5],
                "VOILUTFunction": "LINEAR_EXACT",
            },
            (1.0 * RAMP - 1500) / 1000,
        ),
        (
            {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
            1 / (1 + np.exp(-4 * (RAMP - 2000.0) / 1000)),
        ),
        # The window is in rescaled units.
        (
            {
                "RescaleSlope": 2,
                "RescaleIntercept": -1024,
                "WindowCenter": 40.5,
                "WindowWidth": 401,
            },
            (2.0 * RAMP - 1024 + 160) / 400,
        ),
        ({"PixelPaddingValue": int(RAMP.max())}, RAMP / (RAMP.max() - 1)),
    ],
)
def test_windows_by_the_standards_formulas(
    tmp_path: Path, elements: dict[str, Any], expected: np.ndarray
) -> None:
    path = fake_dicom.write(tmp_path / "a.dcm", RAMP, bits=13, **elements)
    assert_close(read_image(path), expected)


def test_monochrome1_is_inverted_and_signed_values_are_signed(tmp_path: Path) -> None:
    path = fake_dicom.write(tmp_path / "a.dcm", RAMP, photometric="MONOCHROME1")
    assert_close(read_image(path), 1 - RAMP / RAMP.max())
    signed = RAMP.astype(np.int16) - 2000
    path = fake_dicom.write(tmp_path / "b.dcm", signed, WindowCenter=0.5, WindowWidth=101)
    assert_close(read_image(path), (1.0 * signed + 50) / 100)


def table(first: int, values: list[int], bits: int, **elements: Any) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    item.add_new("LUTData", "US", values)
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def test_lookup_tables(tmp_path: Path) -> None:
    pixels = np.tile(np.arange(4, dtype=np.uint8), (64, 16))
    voi = table(1, [0, 10, 255], 8)
    path = fake_dicom.write(tmp_path / "a.dcm", pixels, VOILUTSequence=[voi])
    assert_close(read_image(path), np.array([0, 0, 10, 255])[pixels] / 255)
    modality = table(0, [5, 5, 7, 9], 16, ModalityLUTType="US")
    path = fake_dicom.write(tmp_path / "b.dcm", pixels, ModalityLUTSequence=[modality])
    assert_close(read_image(path), np.array([0, 0, 0.5, 1])[pixels])


def test_color_frames_and_compression(tmp_path: Path) -> None:
    color = np.random.default_rng(0).integers(0, 256, (64, 70, 3), dtype=np.uint8)
    path = fake_dicom.write(tmp_path / "color.dcm", color, photometric="RGB")
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), color)
    frames = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]])
    path = fake_dicom.write(tmp_path / "frames.dcm", frames, NumberOfFrames=3)
    for index in range(3):
        assert_close(read_image(path, index), frames[index] / RAMP.max())
    with pytest.raises(ImageReadError, match=r"3 frame\(s\); there is no frame 3"):
        read_image(path, 3)
    packed = fake_dicom.dataset(RAMP)
    packed.compress(RLELossless)
    packed.save_as(tmp_path / "rle.dcm", enforce_file_format=True)
    assert_close(read_image(tmp_path / "rle.dcm"), RAMP / RAMP.max())
    deflated = tmp_path / "deflated.dcm"
    fake_dicom.write(deflated, RAMP, syntax=DeflatedExplicitVRLittleEndian)
    assert_close(read_image(deflated), RAMP / RAMP.max())


def test_content_and_suffix_decide(tmp_path: Path) -> None:
    path = fake_dicom.write(tmp_path / "IM0001", RAMP)
    assert_close(read_image(path), RAMP / RAMP.max())
    bare = tmp_path / "bare.dcm"
    data = fake_dicom.dataset(RAMP)
    del data.file_meta
    data.save_as(bare, enforce_file_format=False, implicit_vr=True, little_endian=True)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert_close(read_image(bare), RAMP / RAMP.max())
    assert find_images(tmp_path) == [path, bare]


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_dicom.write(tmp_path / "rows.dcm", RAMP)
    data = pydicom.dcmread(path)
    data.Rows = data.Columns = 65535
    data.save_as(path)
    with pytest.raises(ImageReadError, match="65535 x 65535 px"):
        read_image(path)
    deflated = tmp_path / "deflated.dcm"
    zeros = np.zeros((1024, 1024), np.uint16)
    fake_dicom.write(deflated, zeros, syntax=DeflatedExplicitVRLittleEndian)
    assert deflated.stat().st_size < 10_000
    monkeypatch.setattr(module, "MAX_INFLATED", 2**20)
    with pytest.raises(ImageReadError, match="grows to more than 1 MiB"):
        read_image(deflated)


def test_patients_are_named_nowhere(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    path = fake_dicom.write(tmp_path / "a.dcm", RAMP)
    content = path.read_bytes()
    messages = []
    # Cut within the header, and the patient's name where a number is expected.
    damaged = [content[:400], content.replace(b"US\x02\x00\x40\x00", b"DS\x02\x00Se")]
    for index, data in enumerate(damaged):
        broken = tmp_path / f"broken{index}.dcm"
        broken.write_bytes(data)
        with pytest.raises(ImageReadError) as caught:
            read_image(broken)
        messages += traceback.format_exception(caught.value)
    messages += [str(w.message) for w in recwarn.list] + caplog.messages
    assert "Secret" not in " ".join(messages)


def test_pydicoms_own_files_are_read_or_refused() -> None:
    data = Path(pydicom.__file__).parent / "data"
    folder = data / "test_files"
    refused: dict[str, str] = {}
    read = 0
    # Some have no suffix.
    for path in (p for p in sorted(data.rglob("*")) if p.is_file() and module.is_dicom(p)):
        try:
            image = read_image(path)
        except PylonZooError as error:
            refused[path.name] = str(error)
        else:
            read += 1
            assert image.shape[0] in (1, 3)
    assert read >= 90
    assert all(name in message for name, message in refused.items())
    # What is refused has no pixels, is damaged, or wants a decoder that is not installed.
    for name in ("rtplan.dcm", "test-SR.dcm"):
        assert "no pixel data" in refused[name]
    assert "MR_truncated.dcm" in refused
    # Color files of pydicom all show the same test pattern, however they are compressed.
    plain = read_image(folder / "SC_rgb_dcmtk_+eb+cr.dcm").int()
    for name in ("SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_jpeg_dcmtk.dcm"):
        assert (read_image(folder / name).int() - plain).abs().float().mean() < 3, name


def test_a_missing_decoder_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = fake_dicom.dataset(RAMP)
    packed.compress(RLELossless)
    packed.save_as(tmp_path / "rle.dcm", enforce_file_format=True)

    class Unavailable:
        is_available = False

    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda _uid: Unavailable)
    with pytest.raises(ImageReadError, match=r"RLE Lossless.*pip install"):
        read_image(tmp_path / "rle.dcm")


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_dicom.write(tmp_path / "a.dcm", RAMP)
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pydicom":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=re.escape("pylon-zoo[dicom]")):
        read_image(path)
