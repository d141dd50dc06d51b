"""A tiny CheXlocalize in its official layout, with made-up findings."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Support Devices",
)
#: All that CheXpert labels.
COLUMNS = ("No Finding", *FINDINGS, "Pneumonia", "Pleural Other", "Fracture")
HEIGHT, WIDTH = 64, 80
#: split, image, finding -> (x0, y0, x1, y1) of its mask
IMAGES: dict[str, dict[str, dict[str, tuple[int, int, int, int]]]] = {
    "val": {
        "patient64541/study1/view1_frontal": {
            "Cardiomegaly": (30, 20, 60, 50),
            "Lung Opacity": (5, 5, 20, 25),
        },
        "patient64542/study1/view1_frontal": {},
        "patient64542/study1/view2_lateral": {"Support Devices": (0, 0, 80, 10)},
    },
    "test": {"patient64741/study1/view1_frontal": {"Pleural Effusion": (40, 40, 80, 64)}},
    "train": {f"patient{i:05}/study1/view1_frontal": {} for i in range(1, 9)},
}


def encode(mask: np.ndarray) -> str:
    """Run lengths as COCO compresses them, run by run."""
    runs, current = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != current:
            runs.append(0)
            current = pixel
        runs[-1] += 1
    text = ""
    for index, run in enumerate(runs):
        number = run - runs[index - 2] if index > 2 else run
        while True:
            piece, number = number & 31, number >> 5
            done = number == (-1 if piece & 16 else 0)
            text += chr(48 + piece + (0 if done else 32))
            if done:
                break
    return text


def write(root: Path, *, scale: int = 1) -> Path:
    """Images at ``1 / scale`` of the size that their masks have."""
    for folder in ("CheXlocalize", "CheXpert"):
        (root / folder).mkdir(parents=True)
    for split, images in IMAGES.items():
        header = "Path,Sex,Age,Frontal/Lateral,AP/PA," if split != "test" else "Path,"
        lines = [header + ",".join(COLUMNS)]
        masks: dict[str, dict[str, object]] = {}
        for index, (image, findings) in enumerate(images.items()):
            pixels = np.random.default_rng(index).integers(0, 60, (HEIGHT, WIDTH), dtype=np.uint8)
            labels = {name: "1.0" if name in findings else "0.0" for name in COLUMNS}
            drawn = {}
            for name in FINDINGS:
                mask = np.zeros((HEIGHT, WIDTH), bool)
                if name in findings:
                    x0, y0, x1, y1 = findings[name]
                    mask[y0:y1, x0:x1] = True
                    pixels[mask] = 200
                # The release calls it by another name than the labels do.
                key = "Airspace Opacity" if name == "Lung Opacity" else name
                drawn[key] = {"size": [HEIGHT, WIDTH], "counts": encode(mask)}
            if findings:
                masks[image.replace("/", "_")] = drawn
            if split == "train":
                # Of CheXpert's own labels, -1 is uncertain and nothing is not mentioned.
                labels |= {FINDINGS[index]: "1.0", FINDINGS[index + 1]: "-1.0", FINDINGS[0]: ""}
            path = root / "CheXpert" / split / f"{image}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[::scale, ::scale]).save(path, quality=95)
            prefix = {"val": "CheXpert-v1.0/valid", "test": "test"}.get(
                split, "CheXpert-v1.0/train"
            )
            extra = "Male,73,Frontal,AP," if split != "test" else ""
            lines.append(f"{prefix}/{image}.jpg,{extra}" + ",".join(labels.values()))
        name = "train.csv" if split == "train" else f"{split}_labels.csv"
        (root / "CheXpert" / name).write_text("\n".join(lines) + "\n")
        if split != "train":
            path = root / "CheXlocalize" / f"gt_segmentations_{split}.json"
            path.write_text(json.dumps(masks))
    return root
