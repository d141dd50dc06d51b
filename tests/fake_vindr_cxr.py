"""A tiny VinDr-CXR in the layout of either release, with made-up findings."""

import hashlib
from pathlib import Path

import fake_dicom
import numpy as np
from PIL import Image

#: The columns of PhysioNet's labels, in their order.
COLUMNS = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture"),
    *("Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity"),
    *("Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion"),
    *("Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion"),
    *("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding"),
)
#: Classes of the competition, by their class_id.
CLASSES = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD"),
    *("Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion"),
    *("Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "No finding"),
)
HEIGHT, WIDTH = 80, 64
Reading = list[tuple[str, tuple[int, int, int, int] | None]]


def name(index: int) -> str:
    return hashlib.md5(str(index).encode()).hexdigest()


#: image -> reader -> (finding, box); those with None for a box are said of the whole image.
TRAIN: dict[str, dict[str, Reading]] = {
    name(0): {
        "R8": [("Cardiomegaly", (16, 40, 48, 64))],
        "R9": [("Cardiomegaly", (18, 40, 50, 66)), ("Rib fracture", (2, 4, 10, 20))],
        "R10": [("Pneumonia", None)],
    },
    **{name(i): {r: [("No finding", None)] for r in ("R8", "R9", "R10")} for i in range(1, 60)},
}
TEST: dict[str, dict[str, Reading]] = {
    name(100): {"": [("ILD", (8, 8, 24, 40))]},
    name(101): {"": [("No finding", None)]},
}


def write(root: Path, *, layout: str = "physionet", scale: int = 0) -> Path:
    """DICOM images; with ``scale`` PNG copies of 1 / scale of their size instead.

    Args:
        layout: ``physionet`` or ``kaggle``.
    """
    (root / "annotations").mkdir(parents=True)
    for split, images in (("train", TRAIN), ("test", TEST)):
        (root / split).mkdir()
        for image, readers in images.items():
            pixels = np.random.default_rng(int(image, 16)).integers(
                0, 900, (HEIGHT, WIDTH), dtype=np.uint16
            )
            for _, box in (finding for reading in readers.values() for finding in reading):
                if box is not None:
                    pixels[box[1] : box[3], box[0] : box[2]] = 4000
            if scale:
                small = Image.fromarray((pixels[::scale, ::scale] // 16).astype(np.uint8))
                small.save(root / split / f"{image}.png")
            else:
                fake_dicom.write(root / split / f"{image}.dicom", pixels, bits=12)
        if layout == "kaggle":
            _kaggle(root, split, images)
        else:
            _physionet(root / "annotations", split, images)
        if scale:
            rows = [f"{image},{HEIGHT},{WIDTH}" for image in images]
            (root / f"{split}_meta.csv").write_text("\n".join(["image_id,dim0,dim1", *rows]))
    if layout == "kaggle":
        (root / "annotations").rmdir()
    return root


def _physionet(folder: Path, split: str, images: dict[str, dict[str, Reading]]) -> None:
    reader_column = "rad_id," if split == "train" else ""
    labels = [f"image_id,{reader_column}" + ",".join(COLUMNS)]
    boxes = [f"image_id,{reader_column}class_name,x_min,y_min,x_max,y_max"]
    for image, readers in images.items():
        for reader, reading in readers.items():
            head = f"{image},{reader}," if split == "train" else f"{image},"
            found = {finding for finding, _ in reading}
            labels.append(head + ",".join(str(int(column in found)) for column in COLUMNS))
            for finding, box in reading:
                if box is not None or finding == "No finding":
                    corners = ",".join(f"{v}.5" for v in box) if box else ",,,"
                    boxes.append(f"{head}{finding},{corners}")
    (folder / f"image_labels_{split}.csv").write_text("\n".join(labels) + "\n")
    (folder / f"annotations_{split}.csv").write_text("\n".join(boxes) + "\n")


def _kaggle(root: Path, split: str, images: dict[str, dict[str, Reading]]) -> None:
    """``train.csv``; of the test images nothing is told."""
    if split == "test":
        return
    rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for image, readers in images.items():
        for reader, reading in readers.items():
            for finding, box in reading:
                kind = finding if finding in CLASSES else "Other lesion"
                if box is None:
                    kind = "No finding"
                corners = ",".join(map(str, box)) if box else ",,,"
                rows.append(f"{image},{kind},{CLASSES.index(kind)},{reader},{corners}")
    (root / "train.csv").write_text("\n".join(rows) + "\n")
