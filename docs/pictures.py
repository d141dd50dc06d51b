"""Draw the pictures of the README.

    python docs/pictures.py

Chosen by rule, not by hand: for each finding the first phantom of the test split that has it.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import pylon_zoo
from pylon_zoo.data import Phantom
from pylon_zoo.heatmaps.overlay import draw_overlay
from pylon_zoo.prediction import predict

FINDINGS = ("nodule", "mass", "consolidation", "effusion")
IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Write ``images/phantom.png``: two findings a row."""
    model = pylon_zoo.load_pretrained("pylon_regnetx_002.phantom")
    dataset = Phantom("test")
    panels = []
    for name in FINDINGS:
        k = dataset.class_names.index(name)
        sample = next(s for s in map(dataset.__getitem__, range(1000)) if s.labels[k])
        prediction = predict(model, sample)
        position = prediction.classes.index(k)
        finding = prediction.findings[position]
        panels.append(
            draw_overlay(
                sample.image,
                prediction.probability_maps[position],
                title=f"{name}  {finding.probability:.2f}",
                peak=(finding.x, finding.y),
                boxes=prediction.boxes_of(position),
            )
        )
    width, height, gap = *panels[0].size, 12
    sheet = Image.new("RGB", (2 * width + gap, 2 * height + gap), "#101418")
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index % 2 * (width + gap), index // 2 * (height + gap)))
    IMAGES.mkdir(exist_ok=True)
    small = sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS)
    small.save(IMAGES / "phantom.png", optimize=True)


if __name__ == "__main__":
    main()
