"""A tiny BCCD in its official layout, with made-up cells."""

from pathlib import Path

import numpy as np
from PIL import Image

#: (xmin, ymin, xmax, ymax) as Pascal VOC counts: from 1, the last pixel included.
CELLS = {
    "BloodImage_00000": [("RBC", (11, 21, 110, 120)), ("WBC", (201, 101, 400, 300))],
    "BloodImage_00001": [("RBC", (301, 201, 400, 300)), ("Platelets", (51, 401, 90, 440))],
}


def write(root: Path) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for index, (name, cells) in enumerate(CELLS.items()):
        pixels = np.full((480, 640, 3), 200, np.uint8)
        objects = ""
        for kind, (x0, y0, x1, y1) in cells:
            pixels[y0 - 1 : y1, x0 - 1 : x1, index] = 90
            objects += (
                f"<object><name>{kind}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
                f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            )
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        xml = f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(xml)
    for split in ("train", "val", "test"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(CELLS) + "\n")
    return root
