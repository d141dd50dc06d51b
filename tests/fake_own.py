"""One's own data in each accepted layout: small images, bright in their boxes."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cyst", "stone")


def picture(path: Path, index: int, *, color: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (64, 80, 3) if color else (64, 80)
    pixels = np.random.default_rng(index).integers(0, 100, shape, dtype=np.uint8)
    pixels[8:24, 10:30] = 200
    Image.fromarray(pixels).save(path)


def csv_table(root: Path, *, images: int = 40, patients: int = 20) -> Path:
    """Image ``i`` belongs to patient ``i % patients``; every third label of stone is unknown."""
    lines = ["path,patient,cyst,stone"]
    for index in range(images):
        picture(root / "images" / f"{index}.png", index)
        stone = ("1", "0", ("", "-1", "NaN")[index // 3 % 3])[index % 3]
        lines.append(f"{index}.png,p{index % patients},{index % 2},{stone}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    (root / "boxes.csv").write_text("path,class,x0,y0,x1,y1\n1.png,cyst,10,8,30,24\n")
    return root


def coco(root: Path, name: str = "annotations.json", folder: str = "images") -> Path:
    """Thirty images; the even ones hold a cyst, the first also a crowd of stones."""
    images, annotations = [], []
    for index in range(30):
        file = f"{index:03}.png"
        picture(root / folder / file, index, color=True)
        images.append({"id": index + 100, "file_name": file, "width": 80, "height": 64})
        if index % 2 == 0:
            box = {"bbox": [10, 8, 20, 16], "category_id": 7, "iscrowd": 0}
            annotations.append({"id": index, "image_id": index + 100, **box})
    crowd = {"bbox": [0, 0, 80, 64], "category_id": 90, "iscrowd": 1}
    annotations.append({"id": 99, "image_id": 100, **crowd})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 90, "name": "stone"}, {"id": 7, "name": "cyst"}],
    }
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content))
    return root


def image_folder(root: Path, splits: tuple[str, ...] = ("",), images: int = 30) -> Path:
    for split in splits:
        for offset, name in enumerate(CLASSES):
            for index in range(images):
                number = 100 * offset + index
                picture(root / split / name / f"{split}{number}.png", number)
    return root
