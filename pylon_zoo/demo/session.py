"""What the page shows, without the page: files in, pictures and JSON out.

Uploaded files are deleted as soon as they are read, and nothing of them is logged. What is kept of
an image lives in the memory of its user's session and ends with it.
"""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import interpolate

from pylon_zoo.data import Phantom, Sample, read_image
from pylon_zoo.errors import InvalidInputError, PylonZooError
from pylon_zoo.metrics.boxes import component_boxes
from pylon_zoo.prediction import Finding, Prediction, predict
from pylon_zoo.preprocessing import to_unit_range
from pylon_zoo.weights import load_manifest, load_pretrained
from pylon_zoo.weights.manifest import BundledSource

if TYPE_CHECKING:
    from PIL import Image

    from pylon_zoo.architectures import LocalizationModel

__all__ = [
    "Result",
    "bundled_checkpoints",
    "load_models",
    "picture",
    "picture_html",
    "predict_samples",
    "problems_html",
    "read_files",
    "report",
    "report_html",
    "scores_html",
    "take_phantom",
]

MAX_FILES = 8
MAX_BYTES = 32 * 2**20
#: A mammogram fits.
MAX_PIXELS = 2**24
#: For a model that sees images at their own size, and whose memory grows with them.
MAX_PIXELS_UNRESIZED = 2**21
#: Longer side of the pictures, in pixels.
SIDE = 768
NOTICE = "Not for clinical use."


@dataclass(frozen=True)
class Result:
    """One image and what a model says of it.

    Attributes:
        name: of the file.
        sample: the image as it was given.
        findings: places in pixels of that image.
        view: the same at a size to look at.
    """

    name: str
    sample: Sample
    findings: tuple[Finding, ...]
    view: Prediction

    def boxes(self, class_name: str, threshold: float) -> list[list[int]]:
        """Boxes (x0, y0, x1, y1) of the regions that reach a threshold, in pixels of the image."""
        position = [f.class_name for f in self.findings].index(class_name)
        values = self.view.probability_maps[position].numpy()
        height, width = values.shape
        scale = np.array([self.sample.width / width, self.sample.height / height] * 2)
        boxes = component_boxes((values >= threshold)[None]).boxes * scale
        return [[round(edge) for edge in box] for box in boxes.tolist()]


def bundled_checkpoints() -> list[str]:
    """Names of the checkpoints that come with the package; the one of the example first."""
    names = [
        entry.name
        for entry in load_manifest().checkpoints
        if any(isinstance(source, BundledSource) for source in entry.sources)
    ]
    return sorted(names, key=lambda name: not name.endswith(".phantom"))


def load_models(checkpoints: Sequence[str]) -> dict[str, LocalizationModel]:
    """Models by the name that the page gives them: the checkpoint's, or that of its folder."""
    return {str(name): load_pretrained(name) for name in (*checkpoints, *bundled_checkpoints())}


def read_files(paths: Sequence[str]) -> tuple[list[Sample], list[str]]:
    """Read uploaded files and delete them, whatever they are.

    Returns:
        Images, and a message for each file that is none.
    """
    samples, problems = [], []
    try:
        if len(paths) > MAX_FILES:
            problems.append(
                f"{len(paths)} files were given; the first {MAX_FILES} are shown, which is what "
                f"the page takes at once. For more, use pylon-zoo predict."
            )
        for path in map(Path, paths[:MAX_FILES]):
            try:
                if path.stat().st_size > MAX_BYTES:
                    raise InvalidInputError(f"more than {MAX_BYTES >> 20} MiB.")
                image = read_image(path, max_pixels=MAX_PIXELS)
                samples.append(Sample(image, torch.zeros(0), source=path.name))
            except PylonZooError as error:
                message = str(error).replace(str(path), path.name)
                problems.append(message if path.name in message else f"{path.name}: {message}")
            except Exception as error:
                # Its message may quote the file.
                problems.append(f"{path.name}: cannot be read ({type(error).__name__}).")
    finally:
        for path in map(Path, paths):
            path.unlink(missing_ok=True)
    return samples, problems


def take_phantom() -> Sample:
    """A radiograph phantom by chance, with a finding at least and its true boxes."""
    dataset = Phantom("test")
    while True:
        number = random.randrange(len(dataset))
        if len((sample := dataset[number]).boxes):
            return replace(sample, source=f"phantom {number}")


def predict_samples(
    model: LocalizationModel, samples: Sequence[Sample]
) -> tuple[list[Result], list[str]]:
    """Results, and a message for each image that cannot be predicted."""
    results, problems = [], []
    for sample in samples:
        try:
            pixels = sample.width * sample.height
            if model.spec.preprocessing.resize != "squash" and pixels > MAX_PIXELS_UNRESIZED:
                raise InvalidInputError(
                    f"{sample.width} x {sample.height} px is more than the "
                    f"{MAX_PIXELS_UNRESIZED} px that the page gives to this checkpoint, which "
                    f"sees images at their own size; cut or reduce it."
                )
            given = sample
            if tuple(model.spec.class_names or ()) != Phantom.class_names:
                # True boxes of other classes would be taken for this model's.
                given = Sample(sample.image, torch.zeros(0), source=sample.source)
            prediction = predict(model, given)
        except PylonZooError as error:
            problems.append(f"{sample.source}: {error}")
            continue
        results.append(Result(sample.source, sample, prediction.findings, reduce(prediction, SIDE)))
    return results, problems


def reduce(prediction: Prediction, side: int) -> Prediction:
    """The same with the longer side no more than ``side`` pixels."""
    sample = prediction.sample
    scale = min(1.0, side / max(sample.height, sample.width))
    size = max(1, round(sample.height * scale)), max(1, round(sample.width * scale))
    factors = [size[1] / sample.width, size[0] / sample.height]
    image, maps = (
        interpolate(t[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
        for t in (to_unit_range(sample.image, sample.source), prediction.probability_maps)
    )
    findings = tuple(
        replace(f, x=int((f.x + 0.5) * factors[0]), y=int((f.y + 0.5) * factors[1]))
        for f in prediction.findings
    )
    small = Sample(
        image,
        sample.labels,
        boxes=sample.boxes * torch.tensor(factors * 2),
        box_classes=sample.box_classes,
    )
    return replace(prediction, sample=small, findings=findings, probability_maps=maps)


def picture(result: Result, class_name: str, opacity: float, threshold: float) -> Image.Image:
    """The image under the map of one class."""
    return result.view.plot(
        [class_name], threshold=threshold, opacity=opacity, size=SIDE, plain=False
    )


def report(results: Sequence[Result], model: str, threshold: float) -> str:
    """Every image's findings as JSON; places and boxes in pixels of the image as it was given."""
    images = [
        {
            "image": result.name,
            "width": result.sample.width,
            "height": result.sample.height,
            "findings": [
                {**f.to_dict(), "boxes": result.boxes(f.class_name, threshold)}
                for f in result.findings
            ],
        }
        for result in results
    ]
    content = {"model": model, "notice": NOTICE, "threshold": threshold, "images": images}
    return json.dumps(content, indent=2) + "\n"


def picture_html(result: Result, class_name: str, opacity: float, threshold: float) -> str:
    """The picture in the page itself: the server writes no file."""
    buffer = io.BytesIO()
    picture(result, class_name, opacity, threshold).save(buffer, "PNG")
    alt = f"Class map of {class_name} over {result.name}"
    url = data_url(buffer.getvalue(), "image/png")
    name = f"{Path(result.name).stem}_{class_name}.png"
    return (
        f'<img class="pz-picture" alt="{escape(alt)}" src="{url}">'
        f'<a class="pz-save" download="{escape(name)}" href="{url}">Save PNG</a>'
    )


def report_html(results: Sequence[Result], model: str, threshold: float) -> str:
    """The link that saves the report of all images."""
    url = data_url(report(results, model, threshold).encode(), "application/json")
    count = f" of {len(results)} images" if len(results) > 1 else ""
    return f'<a class="pz-save" download="predictions.json" href="{url}">Save JSON{count}</a>'


def scores_html(result: Result) -> str:
    """Probabilities as a table with bars, most probable first."""
    rows = "".join(
        f"<tr><th>{escape(f.class_name)}</th>"
        f'<td><span class="pz-bar" style="width:{100 * f.probability:.1f}%"></span></td>'
        f"<td>{f.probability:.2f}</td></tr>"
        for f in result.findings
    )
    return f'<table class="pz-scores">{rows}</table>'


def problems_html(problems: Sequence[str]) -> str:
    """Messages, one a line."""
    return "".join(f'<p class="pz-problem">{escape(p)}</p>' for p in problems)


def data_url(content: bytes, kind: str) -> str:
    """Bytes as a link of their own."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
