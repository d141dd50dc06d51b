"""Mutated files: read, or refused by an error of this package; nothing else."""

import io
from collections.abc import Callable
from pathlib import Path

import fake_chexlocalize
import fake_dicom
import fake_vindr_cxr
import fake_voc2012
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from pylon_zoo.data import VOC2012, CheXlocalize, FileDataset, VinDrCXR, read_image
from pylon_zoo.errors import PylonZooError


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bytes, cut, swap or repeat a piece; headers more often than the rest."""
    mutated = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        reach = len(mutated) if rng.random() < 0.5 else min(len(mutated), 400)
        if reach < 2:
            break
        a, b = sorted(rng.integers(0, reach, 2).tolist())
        match rng.integers(4):
            case 0:
                for place in rng.integers(0, reach, int(rng.integers(1, 9))):
                    mutated[place] = int(rng.integers(256))
            case 1:
                del mutated[a:b]
            case 2:
                mutated[a:b] = mutated[a:b][::-1]
            case _:
                mutated[a:a] = mutated[a:b]
    return bytes(mutated)


def originals() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (64, 70), dtype=np.uint8)
    deep = gray.astype(np.uint16) * 257
    color = rng.integers(0, 256, (64, 70, 3), dtype=np.uint8)
    made: dict[str, bytes] = {}

    def save(name: str, image: Image.Image, **options: object) -> None:
        buffer = io.BytesIO()
        image.save(buffer, format=name.split(".")[1], **options)
        made[name] = buffer.getvalue()

    save("gray.png", Image.fromarray(gray))
    save("deep.png", Image.fromarray(deep))
    save("palette.png", Image.fromarray(color).quantize(16))
    exif = Image.Exif()
    exif[0x0112] = 6
    save("color.jpeg", Image.fromarray(color), exif=exif)
    save("cmyk.tiff", Image.fromarray(color).convert("CMYK"))
    save("gray.bmp", Image.fromarray(gray))
    for name, compressed in (("plain.dcm", False), ("rle.dcm", True)):
        data = fake_dicom.dataset(deep, WindowCenter=30000, WindowWidth=9000)
        if compressed:
            data.compress(RLELossless)
        buffer = io.BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        made[name] = buffer.getvalue()
    return made


def read_mutations(folder: Path, count: int) -> tuple[int, int]:
    """Read ``count`` mutated files; return how many were read and how many were refused."""
    rng = np.random.default_rng(0)
    files = list(originals().items())
    read = refused = 0
    for index in range(count):
        name, data = files[index % len(files)]
        path = folder / name
        path.write_bytes(mutate(data, rng))
        try:
            image = read_image(path)
        except PylonZooError:
            refused += 1
        else:
            assert image.ndim == 3
            read += 1
    return read, refused


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata
@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.full)])
def test_only_typed_errors(tmp_path: Path, count: int) -> None:
    read, refused = read_mutations(tmp_path, count)
    assert read > count / 20
    assert refused > count / 5


#: Writes a fake, opens it, and a file of it that says what is where.
ANNOTATED: dict[str, tuple[Callable[[Path], Path], Callable[[Path], FileDataset], str]] = {
    "voc xml": (fake_voc2012.write, lambda r: VOC2012(r, "val"), "Annotations/2008_000001.xml"),
    "voc mask": (
        fake_voc2012.write,
        lambda r: VOC2012(r, "val"),
        "SegmentationClass/2008_000001.png",
    ),
    "masks": (
        fake_chexlocalize.write,
        lambda r: CheXlocalize(r, "val"),
        "CheXlocalize/gt_segmentations_val.json",
    ),
    "labels": (
        fake_chexlocalize.write,
        lambda r: CheXlocalize(r, "val"),
        "CheXpert/val_labels.csv",
    ),
    "readers": (
        fake_vindr_cxr.write,
        lambda r: VinDrCXR(r, "test"),
        "annotations/image_labels_test.csv",
    ),
    "boxes": (
        fake_vindr_cxr.write,
        lambda r: VinDrCXR(r, "test"),
        "annotations/annotations_test.csv",
    ),
}


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata
@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", ANNOTATED)
def test_only_typed_errors_of_annotations(tmp_path: Path, kind: str, count: int) -> None:
    write, dataset, file = ANNOTATED[kind]
    path = write(tmp_path / "data") / file
    original, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(count):
        path.write_bytes(mutate(original, rng))
        try:
            for sample in dataset(tmp_path / "data"):
                assert sample.masks.shape[1:] == sample.image.shape[1:]
        except PylonZooError:
            refused += 1
    assert refused > count / 5
