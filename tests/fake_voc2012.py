"""A tiny Pascal VOC 2012 in its official layout, with made-up objects."""

from pathlib import Path

import numpy as np
from PIL import Image

#: class, (xmin, ymin, xmax, ymax) counted from 1 with the last pixel included, difficult
OBJECTS = {
    "2008_000001": [("cat", (11, 6, 30, 25), 0), ("person", (41, 11, 60, 40), 1)],
    "2008_000002": [("person", (1, 1, 20, 30), 0), ("person", (31, 21, 50, 40), 1)],
    **{f"2008_{i:06}": [("dog", (i % 7 + 1, 3, i % 7 + 30, 30), 0)] for i in range(10, 34)},
}
VAL = ("2008_000001", "2008_000002")
#: Images with a segmentation, by the indices of their classes: cat 8, person 15, dog 12.
SEGMENTED = {"2008_000001": (8, 0), "2008_000011": (12,)}
WIDTH, HEIGHT = 60, 40


def write(root: Path, *, scale: int = 1) -> Path:
    """Images, and their segmentations, at ``scale`` times the size that annotations speak of."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for index, (name, objects) in enumerate(OBJECTS.items()):
        pixels = np.random.default_rng(index).integers(0, 40, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        classes = np.zeros((HEIGHT, WIDTH), np.uint8)
        xml = ""
        for at, (kind, (x0, y0, x1, y1), difficult) in enumerate(objects):
            place = (slice(y0 - 1, y1), slice(x0 - 1, x1))
            pixels[place] = 200
            # As in the real one, a border and what is difficult is void.
            classes[place] = 255
            if not difficult:
                color = SEGMENTED.get(name, (0, 0))[at]
                classes[y0 : y1 - 1, x0 : x1 - 1] = color
            part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
            xml += (
                f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox>"
                f"<xmax>{x1}</xmax><xmin>{x0}.0</xmin><ymax>{y1}</ymax><ymin>{y0}</ymin></bndbox>"
                f"{part if kind == 'person' else ''}</object>"
            )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{name}.jpg</filename>{size}{xml}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(xml)
        large = pixels.repeat(scale, 0).repeat(scale, 1)
        Image.fromarray(large).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        if name in SEGMENTED:
            palette = Image.fromarray(classes.repeat(scale, 0).repeat(scale, 1)).convert("P")
            palette.putpalette([value * 7 % 256 for value in range(768)])
            palette.save(root / "SegmentationClass" / f"{name}.png")
    lists = {"train": [n for n in OBJECTS if n not in VAL], "val": VAL, "trainval": OBJECTS}
    for split, names in lists.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root
