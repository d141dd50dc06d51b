"""Draw the pictures of the README.

    python docs/pictures.py

Chosen by rule, not by hand: for each finding the first phantom of the test split that has it.
"""

from __future__ import annotations

from pathlib import Path

import pylon_zoo
from pylon_zoo.data import Phantom
from pylon_zoo.heatmaps.overlay import stack
from pylon_zoo.prediction import predict

FINDINGS = ("nodule", "mass", "consolidation", "effusion")
IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Write ``images/phantom.png``: two findings a row."""
    model = pylon_zoo.load_pretrained("pylon_regnetx_002.phantom")
    dataset = Phantom("test")
    pictures = []
    for name in FINDINGS:
        k = dataset.class_names.index(name)
        sample = next(s for s in map(dataset.__getitem__, range(1000)) if s.labels[k])
        pictures.append(predict(model, sample).plot([name], size=256))
    IMAGES.mkdir(exist_ok=True)
    stack(pictures, columns=2).save(IMAGES / "phantom.png", optimize=True)


if __name__ == "__main__":
    main()
