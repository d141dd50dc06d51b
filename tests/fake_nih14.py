"""A tiny NIH Chest X-ray 14 in its official layout, with made-up findings."""

from pathlib import Path

import numpy as np
from PIL import Image

#: image, findings, patient
IMAGES = [
    ("00000001_000.png", "No Finding", 1),
    ("00000001_001.png", "Effusion|Infiltration", 1),
    ("00000002_000.png", "Pleural_Thickening", 2),
    ("00000003_000.png", "Mass|Nodule", 3),
    *[(f"{patient:08}_000.png", "Hernia", patient) for patient in range(10, 40)],
    ("00000050_000.png", "Cardiomegaly|Infiltration", 50),
    ("00000051_000.png", "No Finding", 51),
]
TEST = ("00000050_000.png", "00000051_000.png")
#: image, finding as the table of boxes calls it, (x, y, w, h) in pixels of 1024 x 1024
BOXES = [
    ("00000050_000.png", "Cardiomegaly", (256.0, 512.0, 384.0, 256.0)),
    ("00000050_000.png", "Infiltrate", (640.0, 128.0, 128.0, 64.0)),
]


def write(root: Path, *, width: int = 128, height: int = 128, folders: bool = False) -> Path:
    """Images of any size; with ``folders`` as the archives unpack them."""
    root.mkdir(parents=True)
    for index, (name, _, _) in enumerate(IMAGES):
        folder = root / (f"images_{index % 3 + 1:03}/images" if folders else "images")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 60, (height, width), dtype=np.uint8)
        for value, (boxed, _, (x, y, w, h)) in enumerate(BOXES, start=1):
            if boxed == name:
                rows = slice(int(y * height / 1024), int((y + h) * height / 1024))
                columns = slice(int(x * width / 1024), int((x + w) * width / 1024))
                pixels[rows, columns] = 100 * value
        Image.fromarray(pixels).save(folder / name)
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
    )
    # The official header has two commas within names, so that it counts as many as the rows.
    rows = [f"{n},{findings},0,{p},50,F,PA,1024,1024,0.143,0.143\n" for n, findings, p in IMAGES]
    (root / "Data_Entry_2017_v2020.csv").write_text(header + "".join(rows))
    boxes = [f"{n},{f},{','.join(map(str, box))},,,\r\n" for n, f, box in BOXES]
    (root / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\r\n" + "".join(boxes), newline=""
    )
    train_val = [name for name, _, _ in IMAGES if name not in TEST]
    (root / "train_val_list.txt").write_text("\n".join(train_val) + "\n")
    (root / "test_list.txt").write_text("\n".join(TEST))
    return root
