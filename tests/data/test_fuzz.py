"""Mutated files: read, or refused by an error of this package, soon and in little memory."""

import io
import json
import multiprocessing
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fake_chexlocalize
import fake_dicom
import fake_own
import fake_vindr_cxr
import fake_voc2012
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from pylon_zoo.data import (
    COCO,
    VOC2012,
    CheXlocalize,
    CSVTable,
    FileDataset,
    VinDrCXR,
    read_image,
)
from pylon_zoo.data.dicom import DEFLATED
from pylon_zoo.errors import ImageReadError, PylonZooError

#: Seconds that one file may take, and bytes of memory that reading may add.
LONGEST, MOST_MEMORY = 5.0, 2**30
#: What the readers of tables may find anywhere in a text.
WORDS = (
    *('"', ",", "\n", "\r", "\0", "{", "}", "[", "]", "null", "nan", "NaN", "Infinity", "-1"),
    *("1e999", "9" * 400, "[" * 3000, "\ud800", "\ufeff", "true", "path", "stone", "../..", "1_0"),
)


def mutate(data: bytes, rng: np.random.Generator, words: tuple[str, ...] = ()) -> bytes:
    """Flip bytes, cut, swap, repeat or put in a piece; headers more often than the rest."""
    mutated = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        reach = len(mutated) if rng.random() < 0.5 else min(len(mutated), 400)
        if reach < 2:
            break
        a, b = sorted(rng.integers(0, reach, 2).tolist())
        match rng.integers(5 if words else 4):
            case 0:
                for place in rng.integers(0, reach, int(rng.integers(1, 9))):
                    mutated[place] = int(rng.integers(256))
            case 1:
                del mutated[a:b]
            case 2:
                mutated[a:b] = mutated[a:b][::-1]
            case 3:
                mutated[a:a] = mutated[a:b]
            case _:
                word = words[int(rng.integers(len(words)))]
                mutated[a : a + int(rng.integers(0, 6))] = word.encode(errors="surrogatepass")
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
    save("progressive.jpeg", Image.fromarray(gray), progressive=True)
    save("cmyk.tiff", Image.fromarray(color).convert("CMYK"))
    save("packed.tiff", Image.fromarray(gray), compression="tiff_lzw")
    save("gray.bmp", Image.fromarray(gray))
    for name, syntax in (("plain.dcm", None), ("rle.dcm", RLELossless), ("deflated.dcm", DEFLATED)):
        data = fake_dicom.dataset(deep, WindowCenter=30000, WindowWidth=9000)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        if syntax == RLELossless:
            data.compress(RLELossless)
        elif syntax:
            data.file_meta.TransferSyntaxUID = syntax
        buffer = io.BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        made[name] = buffer.getvalue()
    return made


def read_all(path: Path) -> None:
    assert read_image(path).ndim == 3


def read_csv(path: Path) -> None:
    for split in ("train", "all"):
        for sample in CSVTable(path, split):
            assert sample.labels.shape[0] >= 1


def read_boxes(path: Path) -> None:
    for sample in CSVTable(path.parent, boxes=path):
        assert sample.boxes.isfinite().all()


def read_coco(path: Path) -> None:
    for sample in COCO(path):
        assert sample.boxes.isfinite().all()


def files(folder: Path) -> list[tuple[str, bytes, Callable[[Path], None]]]:
    """Name, content and reader of whole files; tables take turns with images."""
    fake_own.csv_table(folder, images=6, patients=6)
    listed = "\n".join(
        ["Image Index,Patient ID,Finding Labels,split"]
        + [f"{i}.png,{i},{'cyst|stone' if i % 2 else 'No Finding'},train" for i in range(6)]
    )
    coco = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 80, "height": 64} for i in range(6)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": i % 2}
            for i in range(5)
        ],
        "categories": [{"id": 1, "name": "cyst"}, {"id": 2, "name": "stone"}],
    }
    tables = [
        ("labels2.csv", (folder / "labels.csv").read_bytes(), read_csv),
        ("listed.csv", listed.encode(), read_csv),
        ("boxes2.csv", (folder / "boxes.csv").read_bytes(), read_boxes),
        ("coco.json", json.dumps(coco).encode(), read_coco),
    ]
    images = [(name, data, read_all) for name, data in originals().items()]
    return [*images, *tables, *tables]


def fuzz(folder: Path, count: int, found: "multiprocessing.Queue[object]") -> None:
    """Read ``count`` mutated files; report how many of each kind were read and refused."""
    warnings.simplefilter("ignore")  # Pillow warns of damaged metadata
    rng = np.random.default_rng(0)
    whole = files(folder)
    outcomes: Counter[tuple[str, bool]] = Counter()
    for _name, data, read in whole:
        (folder / _name).write_bytes(data)
        read(folder / _name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(count):
        name, data, read = whole[index % len(whole)]
        path = folder / name
        path.write_bytes(mutate(data, rng, () if read is read_all else WORDS))
        found.put(f"file {index}, {name}, is read")
        started = time.process_time()
        try:
            read(path)
            outcomes[path.suffix, True] += 1
        except PylonZooError as error:
            outcomes[path.suffix, not str(error)] += 1
        seconds = time.process_time() - started
        assert seconds < LONGEST, f"{name} took {seconds} s"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert grown < MOST_MEMORY, f"{name} took {grown >> 20} MiB"
    found.put(outcomes)


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.full)])
def test_only_typed_errors(tmp_path: Path, count: int) -> None:
    # In a process of its own, which a hang or a crash does not take the tests with.
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=fuzz, args=(tmp_path, count, found))
    process.start()
    last: object = "nothing"
    while isinstance(last, str):
        previous, last = last, None
        try:
            last = found.get(timeout=60)
        finally:
            if last is None:
                process.kill()
                pytest.fail(f"stopped or hung: {previous}")
    process.join(30)
    assert process.exitcode == 0
    outcomes: Counter[tuple[str, bool]] = last  # type: ignore[assignment]
    assert sum(outcomes.values()) == count
    for suffix in (".png", ".jpeg", ".tiff", ".bmp", ".dcm", ".csv", ".json"):
        assert outcomes[suffix, False] > 0, suffix
    assert sum(n for (_, read), n in outcomes.items() if read) > count / 20


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (40_000, 20_000)).save(bomb)
    assert bomb.stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageReadError, match=r"40000 x 20000|damaged or truncated|bomb"):
        read_image(bomb)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 2**27


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
