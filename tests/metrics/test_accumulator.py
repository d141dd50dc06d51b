import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics import (
    Accumulator,
    BoxAccuracy,
    ClassScores,
    MapOverlap,
    MaskOverlap,
    PixelPrecision,
    PointLocalization,
)
from pylon_zoo.metrics.bootstrap import bootstrap

NAMES, SIZE = ("a", "b"), (12, 16)


def one(index: int) -> dict[str, Any]:
    """An image: maps, boxes of one or two classes, masks, labels of which some are unknown."""
    generator = torch.Generator().manual_seed(index)
    corner = torch.randint(0, 8, (2, 2), generator=generator).float()
    boxes = torch.cat([corner, corner + 5], dim=1)[: 1 + index % 2]
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[index % 2, 2:6, 3 : 5 + index % 7] = True
    labels = torch.tensor([index % 2, (index // 2) % 2, float("nan")])[[0, 2 if index % 3 else 1]]
    return {
        "maps": torch.rand(2, *SIZE, generator=generator, dtype=torch.float64),
        "boxes": boxes,
        "classes": torch.arange(len(boxes)),
        "masks": masks,
        "labels": labels[None],
        "logits": torch.randn(1, 2, generator=generator),
        "group": "" if index % 4 else f"patient {index // 8}",
    }


def score(meter: ClassScores, i: dict[str, Any]) -> None:
    meter.update(i["labels"], i["logits"], [i["group"]])


def point(meter: PointLocalization, i: dict[str, Any]) -> None:
    flat = i["maps"].flatten(1).argmax(dim=1)
    peaks = torch.stack([flat % SIZE[1], flat // SIZE[1]], dim=1)
    meter.update(peaks, SIZE, i["boxes"], i["classes"], group=i["group"])


def box(meter: MapOverlap | BoxAccuracy, i: dict[str, Any]) -> None:
    meter.update(i["maps"], i["boxes"], i["classes"], group=i["group"])


def mask(meter: MaskOverlap | PixelPrecision, i: dict[str, Any]) -> None:
    meter.update(i["maps"], i["masks"], group=i["group"])


KINDS: list[tuple[type[Any], Callable[..., None]]] = [
    (ClassScores, score),
    (PointLocalization, point),
    (MapOverlap, box),
    (BoxAccuracy, box),
    (MaskOverlap, mask),
    (PixelPrecision, mask),
]


@pytest.mark.parametrize(("kind", "feed"), KINDS, ids=[k.__name__ for k, _ in KINDS])
def test_parts_add_up_to_the_whole(kind: type[Accumulator], feed: Callable[..., None]) -> None:
    whole, joined = kind(NAMES), kind(NAMES)
    for index in range(11):
        feed(whole, one(index))
    for part in (range(4), range(4, 4), range(4, 11)):  # one of them empty
        piece = kind(NAMES)
        for index in part:
            feed(piece, one(index))
        joined.extend(piece.state())
    assert len(joined) == len(whole) == 11
    found, expected = (json.dumps(m.compute(replicates=50)) for m in (joined, whole))  # type: ignore[attr-defined]
    assert found == expected
    for other in (
        kind(("a",)),
        ClassScores(NAMES) if kind is not ClassScores else MaskOverlap(NAMES),
    ):
        with pytest.raises(InvalidInputError, match="same measure and classes"):
            joined.extend(other.state())
    whole.clear()
    assert len(whole) == 0


def test_blocks_of_replicates_are_the_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [f"patient {index // 3}" for index in range(20)]
    seen = []

    def keep(rows: np.ndarray) -> np.ndarray:
        seen.append(len(rows))
        return rows

    whole = bootstrap(keep, groups, replicates=30, seed=3)
    monkeypatch.setattr("pylon_zoo.metrics.bootstrap.BLOCK", 20 * 8)
    assert np.array_equal(bootstrap(keep, groups, replicates=30, seed=3), whole)
    assert seen == [30, 8, 8, 8, 6]
    # Groups are drawn whole, and as many as there are.
    for start in range(0, 20, 3):
        assert (whole[:, start : start + 3] == whole[:, [start]]).all()
    assert (whole[:, ::3].sum(axis=1) == 7).all()
