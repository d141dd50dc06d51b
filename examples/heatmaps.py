"""Draw the heatmap of every finding over its image.

    python examples/heatmaps.py [IMAGE ...] [--output FOLDER]

Without an image, it draws three radiograph phantoms, with true boxes. Not for clinical use.
"""

import argparse
from pathlib import Path

import torch

import pylon_zoo
from pylon_zoo.data import Phantom, Sample
from pylon_zoo.prediction import predict

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("images", nargs="*", type=Path)
parser.add_argument("--model", default="pylon_dla46_c.phantom")
parser.add_argument("--output", type=Path, default=Path("heatmaps"))
arguments = parser.parse_args()

model = pylon_zoo.load_pretrained(arguments.model)
samples = [
    Sample(image=pylon_zoo.read_image(path), labels=torch.zeros(0), source=str(path))
    for path in arguments.images
] or [Phantom("test")[index] for index in range(3)]

arguments.output.mkdir(parents=True, exist_ok=True)
for sample in samples:
    prediction = predict(model, sample)
    for finding in prediction.findings:
        if finding.probability < 0.5:
            break  # they come by falling probability
        picture = prediction.plot([finding.class_name])
        path = arguments.output / f"{Path(sample.source).stem}_{finding.class_name}.png"
        picture.save(path)
        print(path)
