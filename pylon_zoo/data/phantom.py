"""Generated radiograph phantoms: seeded, unlimited, with exact boxes; no files, no network.

A phantom is a drawing of a frontal chest radiograph (torso, lungs, ribs, spine, heart,
diaphragm), with findings drawn in. It looks enough like a radiograph to exercise every part of
the package, and it is no radiograph: a model trained on it says nothing about patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pylon_zoo.data.sample import Sample, empty_boxes
from pylon_zoo.errors import InvalidOptionError, unknown_name

__all__ = ["Phantom"]

Array = NDArray[Any]


def _smoothstep(values: Array) -> Array:
    clipped = np.clip(values, 0, 1)
    return np.asarray(clipped * clipped * (3 - 2 * clipped), dtype=np.float32)


def _noise(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Smooth noise of unit variance: ``cells`` x ``cells`` random values, linearly interpolated."""
    grid = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    position = np.linspace(0, cells, size, dtype=np.float32)
    low = np.minimum(position.astype(np.int64), cells - 1)
    part = position - low
    rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
    return np.asarray(rows[:, low] * (1 - part) + rows[:, low + 1] * part, dtype=np.float32)


@dataclass
class _Canvas:
    """A chest being drawn; lengths are parts of the side, so that any size draws the same chest."""

    rng: np.random.Generator
    size: int

    def __post_init__(self) -> None:
        centers = (np.arange(self.size, dtype=np.float32) + 0.5) / self.size
        self.x, self.y = centers[None, :], centers[:, None]
        self.edge = 1.0 / self.size
        self.image: Array = np.zeros((self.size, self.size), dtype=np.float32)
        self.boxes: list[tuple[float, float, float, float]] = []
        self.classes: list[int] = []

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, power: float = 2.0) -> Array:
        """Radius in units of the ellipse's own: below 1 inside."""
        radius = np.abs((self.x - cx) / rx) ** power + np.abs((self.y - cy) / ry) ** power
        root = np.sqrt(radius) if power == 2 else radius ** (1 / power)
        return np.asarray(root, dtype=np.float32)

    def mark(self, kind: int, mask: NDArray[np.bool_]) -> None:
        """Note a finding by the tightest box around the pixels of its mask."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        self.mark_box(kind, columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)

    def mark_box(self, kind: int, x0: float, y0: float, x1: float, y1: float) -> None:
        """Note a finding by its box in pixels."""
        self.boxes.append((float(x0), float(y0), float(x1), float(y1)))
        self.classes.append(kind)

    def draw_chest(self, heart_scale: float) -> None:
        """Everything that is there without any finding."""
        u = self.rng.uniform
        x, y = self.x, self.y
        self.center = u(0.48, 0.52)
        side = np.abs(x - self.center)
        torso = _smoothstep(1 + (0.47 + 0.04 * y - side - 0.35 * np.clip(0.16 - y, 0, 1)) / 0.02)
        self.image = torso * (0.58 + 0.06 * _noise(self.rng, self.size, 5))
        # Lungs: a tapered oval each, cut off below by the dome of its diaphragm.
        self.lungs: list[Array] = []
        self.lung_shapes: list[tuple[float, float, float, float]] = []
        top, height = u(0.07, 0.11), u(0.7, 0.77)
        for direction in (-1, 1):
            cx = self.center + direction * u(0.205, 0.225)
            cy, rx, ry = top + height * 0.55, u(0.145, 0.165), height * 0.58
            dome = top + height * u(0.93, 1.0) + 0.9 * (x - cx + direction * 0.02) ** 2 / rx
            radius = self.ellipse(cx, cy, rx * 1, ry, 2.4)
            lung = _smoothstep((1 - radius) / 0.08) * _smoothstep((dome - y) / 0.015)
            self.lungs.append(lung)
            self.lung_shapes.append((cx, cy, rx, ry))
        self.both_lungs = self.lungs[0] + self.lungs[1]
        self.image -= self.both_lungs * u(0.33, 0.4)
        # Vessels: a fine texture that fades away from the hila.
        hilum = np.exp(-((side - 0.09) ** 2) / 0.012 - (y - 0.42) ** 2 / 0.04)
        vessels = 0.035 * _noise(self.rng, self.size, 40) + 0.03 * _noise(self.rng, self.size, 20)
        self.image += self.both_lungs * (vessels * (0.5 + hilum) + 0.1 * hilum)
        # Spine, with the rhythm of its vertebrae.
        spine = np.exp(-(((x - self.center) / 0.035) ** 2))
        self.image += spine * (0.13 + 0.03 * np.sin(y * u(80, 95)))
        # Ribs: arcs that fall towards the sides, brighter where they are seen edge-on.
        phase = (y - 1.1 * side - 1.6 * (side - 0.2) ** 2) * u(76, 86) + u(0, 6)
        ribs = (np.clip(np.cos(phase), 0.2, 1) - 0.2) * _smoothstep((0.98 - y) / 0.1)
        self.image += torso * _smoothstep((side - 0.06) / 0.05) * ribs * u(0.06, 0.1)
        for direction in (-1, 1):  # clavicles
            line = y - (0.145 - direction * 0.22 * (x - self.center))
            inside = (side > 0.04) & (side < 0.33) & ((x - self.center) * direction > 0)
            self.image += 0.1 * np.exp(-((line / 0.014) ** 2)) * inside
        # Heart and the vessels above it.
        self.heart = (self.center + 0.05 * heart_scale, top + height * 0.78)
        self.heart_radii = (
            u(0.115, 0.125) * heart_scale,
            u(0.125, 0.145) * (0.5 + heart_scale / 2),
        )
        heart = self.ellipse(*self.heart, *self.heart_radii)
        self.heart_mask = heart < 1
        shade = np.maximum(
            _smoothstep((1 - heart) / 0.15),
            0.8 * _smoothstep((1 - self.ellipse(self.center, 0.3, 0.062, 0.22)) / 0.3),
        )
        self.image += shade * np.clip(0.66 - self.image, 0, 1)

    def lung_point(self, margin: float) -> tuple[float, float, int]:
        """A random place (x, y) at least ``margin`` inside a lung and off the heart."""
        while True:
            which = int(self.rng.integers(2))
            cx, cy, rx, ry = self.lung_shapes[which]
            px, py = cx + self.rng.uniform(-rx, rx), cy + self.rng.uniform(-ry, ry)
            reach = [(0, 0), (margin, 0), (-margin, 0), (0, margin), (0, -margin)]
            cells = [
                (min(int((py + dy) * self.size), self.size - 1), int((px + dx) * self.size))
                for dx, dy in reach
            ]
            if all(self.lungs[which][c] > 0.9 and not self.heart_mask[c] for c in cells):
                return px, py, which

    # One method a finding; each draws it and marks its box.

    def nodule(self, kind: int) -> None:
        """A small dense round opacity, 2 to 4 % of the side across; one to five of them."""
        for _ in range(int(self.rng.integers(1, 6))):
            radius = self.rng.uniform(0.0105, 0.0195)
            cx, cy, _lung = self.lung_point(2 * radius)
            distance = self.ellipse(cx, cy, radius, radius)
            self.image += self.rng.uniform(0.36, 0.52) * np.sqrt(np.clip(1 - distance**2, 0, 1))
            # Its own outline, since on a small image it may lie between the pixels' centres.
            corners = (cx - radius, cy - radius, cx + radius, cy + radius)
            self.mark_box(kind, *(corner * self.size for corner in corners))

    def mass(self, kind: int) -> None:
        """A lobulated opacity, 9 to 16 % of the side across."""
        radius = self.rng.uniform(0.045, 0.08)
        cx, cy, _lung = self.lung_point(0.6 * radius)
        angle = np.arctan2(self.y - cy, self.x - cx)
        outline = np.ones_like(angle)
        for lobes in (2, 3, 5):
            outline += self.rng.uniform(0.04, 0.09) * np.cos(
                lobes * angle + self.rng.uniform(0, 2 * math.pi)
            )
        distance = self.ellipse(cx, cy, radius, radius) / outline
        self.image += self.rng.uniform(0.22, 0.34) * _smoothstep((1 - distance) / 0.25)
        self.mark(kind, distance < 1)

    def consolidation(self, kind: int) -> None:
        """A patchy opacity with soft edges that stays within its lung."""
        rx, ry = self.rng.uniform(0.08, 0.12), self.rng.uniform(0.09, 0.15)
        cx, cy, lung = self.lung_point(0.03)
        distance = self.ellipse(cx, cy, rx, ry) + 0.16 * _noise(self.rng, self.size, 14)
        extent = _smoothstep((1 - distance) / 0.45) * self.lungs[lung]
        patches = 1 + 0.35 * _noise(self.rng, self.size, 28)
        self.image += self.rng.uniform(0.2, 0.28) * extent * patches
        self.mark(kind, extent > 0.25)

    def effusion(self, kind: int) -> None:
        """Fluid at the base of one lung, its surface rising towards the chest wall."""
        which = int(self.rng.integers(2))
        cx, cy, rx, ry = self.lung_shapes[which]
        outward = (self.x - cx) * (1 if which else -1) / rx
        surface = cy + ry * self.rng.uniform(0.25, 0.55) - 0.06 * np.exp(2.2 * (outward - 0.6))
        fluid = _smoothstep((self.y - surface) / 0.03) * np.clip(self.lungs[which] * 4, 0, 1)
        self.image += fluid * np.clip(0.76 - self.image, 0, 1)
        self.mark(kind, (fluid > 0.5) & ~self.heart_mask)

    def pneumothorax(self, kind: int) -> None:
        """Air above a collapsed lung: a dark crescent without vessels, then the pleural line."""
        which = int(self.rng.integers(2))
        cx, cy, rx, ry = self.lung_shapes[which]
        depth = self.rng.uniform(0.16, 0.3)
        inner = self.ellipse(
            cx - (1 if which else -1) * depth * rx * 0.5,
            cy + depth * ry,
            rx,
            ry * (1 - depth * 0.3),
            2.4,
        )
        lung = self.lungs[which] * _smoothstep((cy + 0.2 * ry - self.y) / 0.08)
        air = _smoothstep((inner - 0.97) / 0.05) * lung
        dark = self.image.min() + 0.1
        self.image += air * 0.75 * (np.minimum(self.image, dark) - self.image)
        self.image += 0.16 * lung * np.exp(-(((inner - 0.97) / 0.02) ** 2))
        self.mark(kind, air > 0.5)

    def cardiomegaly(self, kind: int) -> None:
        """An enlarged heart, drawn with the chest; its box is the whole heart's."""
        self.mark(kind, self.heart_mask)

    def develop(self) -> NDArray[np.uint8]:
        """Exposure, quantum noise and 8 bits."""
        image = np.clip(self.image, 0, 1) ** self.rng.uniform(0.85, 1.2)
        image = image * self.rng.uniform(0.85, 1.05) + self.rng.uniform(0, 0.05)
        image += self.rng.uniform(0.01, 0.025) * self.rng.standard_normal(
            image.shape, dtype=np.float32
        )
        return np.asarray(np.clip(image, 0, 1) * 255 + 0.5, dtype=np.uint8)


class Phantom:
    """Radiograph phantoms with six findings, several to an image, about one in six without.

    Item ``i`` depends on (seed, split, i) alone. Any index is an image, ``len`` only says how many
    one epoch or one evaluation takes.
    """

    class_names = (
        "nodule",
        "mass",
        "consolidation",
        "effusion",
        "pneumothorax",
        "cardiomegaly",
    )
    SPLITS = ("train", "val", "test")
    #: Large findings first, so that none is drowned by what is drawn over it.
    DRAWING_ORDER = (
        "cardiomegaly",
        "pneumothorax",
        "effusion",
        "consolidation",
        "mass",
        "nodule",
    )
    #: Probability of each finding, independent of the others.
    PREVALENCE = 0.25
    license = "Apache-2.0 (generated by pylon_zoo)"

    def __init__(
        self, split: str = "train", *, size: int = 256, length: int = 1000, seed: int = 0
    ) -> None:
        """Describe the images; each is drawn when it is asked for.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``: other images of the same distribution.
            size: side in pixels, at least 64.
            length: number of images.
            seed: another seed gives other images.
        """
        if split not in self.SPLITS:
            raise unknown_name("split of phantom,", split, self.SPLITS)
        if size < 64 or length < 1:
            raise InvalidOptionError(
                f"A phantom needs size >= 64 and length >= 1; got size {size}, length {length}."
            )
        self.split, self.size, self.length, self.seed = split, size, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, self.SPLITS.index(self.split), index))
        present = rng.random(len(self.class_names)) < self.PREVALENCE
        canvas = _Canvas(rng, self.size)
        enlarged = present[self.class_names.index("cardiomegaly")]
        canvas.draw_chest(rng.uniform(1.35, 1.65) if enlarged else rng.uniform(0.9, 1.05))
        for finding in self.DRAWING_ORDER:
            kind = self.class_names.index(finding)
            if present[kind]:
                draw: Callable[[int], None] = getattr(canvas, finding)
                draw(kind)
        name = f"phantom-{self.seed}-{self.split}-{index}"
        return Sample(
            image=torch.from_numpy(canvas.develop())[None],
            labels=torch.from_numpy(present.astype(np.float32)),
            boxes=torch.tensor(canvas.boxes) if canvas.boxes else empty_boxes(),
            box_classes=torch.tensor(canvas.classes, dtype=torch.int64),
            source=name,
            group=name,
        )
