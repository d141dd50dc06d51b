"""What maps of many classes cost: get_cam against the grad-cam package and against one forward.

    python benchmarks/gradcam.py --encoder resnet50 --classes 14 --batch 8 --size 256

Three pairs, each timed in turn in one process on the same images, after one untimed round:

1. Grad-CAM of all classes of a timm classifier: ``get_cam`` once, the package class by class.
2. The same of a model of the zoo.
3. The zoo model's own maps in image pixels (``get_cam``'s default) and its bare forward pass.

Maps of the first two pairs must agree to 1e-4, or nothing is printed. Each line gives the median
over rounds of the ratio within a round, and the median seconds of both sides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import timm
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from pylon_zoo import create_model, get_cam
from pylon_zoo.heatmaps.capture import as_logits

TOLERANCE = 1e-4


class Logits(nn.Module):
    """A classifier as the package takes it: one that returns a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        return as_logits(self.model(images), len(images))


def package_maps(model: nn.Module, layer: nn.Module, images: Tensor, classes: int) -> np.ndarray:
    """(B, K, H, W) of the grad-cam package."""
    with GradCAM(Logits(model), [layer]) as cam:
        maps = [cam(images, [ClassifierOutputTarget(k)] * len(images)) for k in range(classes)]
    return np.stack(maps, axis=1)


def paired(first: Callable[[], object], second: Callable[[], object], repeats: int) -> str:
    """Both in turn, ``repeats`` times: median of second / first, and their median seconds."""
    seconds: list[tuple[float, float]] = []
    for _ in range(repeats + 1):
        marks = [_now()]
        for call in (first, second):
            call()
            marks.append(_now())
        seconds.append((marks[1] - marks[0], marks[2] - marks[1]))
    seconds = seconds[1:]
    ratio = statistics.median(b / a for a, b in seconds)
    a, b = (statistics.median(side) for side in zip(*seconds, strict=True))
    return f"{ratio:7.2f} x   ({b:.4f} s / {a:.4f} s)"


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--encoder", default="resnet50", help="a timm model's name")
    parser.add_argument("--layer", default="layer4", help="that gives its deepest features")
    parser.add_argument("--architecture", default="pylon", help="of the zoo, on that encoder")
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()

    torch.manual_seed(0)
    images = torch.randn(options.batch, 1, options.size, options.size, device=options.device)
    plain = timm.create_model(options.encoder, in_chans=1, num_classes=options.classes)
    zoo = create_model(
        f"{options.architecture}_{options.encoder}", in_chans=1, num_classes=options.classes
    )
    print(
        f"{options.classes} classes, batch {options.batch}, {options.size} px, {options.device}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"median of {options.repeats} rounds"
    )
    for name, model, encoder in (
        (f"timm {options.encoder}", plain, plain),
        (zoo.spec.name, zoo, zoo.encoder.model),
    ):
        model.to(options.device).eval()
        layer = encoder.get_submodule(options.layer)

        def ours(model: nn.Module = model) -> np.ndarray:
            maps = get_cam(model, images, method="gradcam", normalize=True)
            return np.asarray(maps.cpu())

        def package(model: nn.Module = model, layer: nn.Module = layer) -> np.ndarray:
            return package_maps(model, layer, images, options.classes)

        difference = float(np.abs(ours() - package()).max())
        if not difference <= TOLERANCE:
            raise SystemExit(f"{name}: the maps differ by up to {difference:.2g}.")
        ratio = paired(ours, package, options.repeats)
        print(f"grad-cam's GradCAM / get_cam, {name}: {ratio}, maps within {difference:.1g}")

    def forward() -> object:
        with torch.no_grad():
            return zoo(images)

    ratio = paired(forward, lambda: get_cam(zoo, images), options.repeats)
    print(f"native get_cam / forward, {zoo.spec.name}: {ratio}")


if __name__ == "__main__":
    main()
