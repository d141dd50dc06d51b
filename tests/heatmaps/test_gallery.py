from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pylon_zoo.heatmaps.gallery import DARK, Case, Cell, choose_cases, draw_gallery
from pylon_zoo.heatmaps.overlay import GAP, TRUE_BOX


def cases(hits: list[float], misses: list[float]) -> list[Case]:
    """In an order that is none of their confidence; indices 0... in the order given."""
    found = [Case(i, p, True) for i, p in enumerate(hits)]
    found += [Case(len(hits) + i, p, False) for i, p in enumerate(misses)]
    return found[::2] + found[1::2]


@pytest.mark.parametrize(
    ("hits", "misses", "chosen"),
    [
        ([0.2, 0.9, 0.5], [0.1, 0.7, 0.3], (1, 2, 4)),
        # Of four the more confident of the middle two.
        ([0.2, 0.9, 0.5, 0.4], [0.95], (1, 2, 4)),
        ([0.3], [], (0, 0, None)),
        ([], [0.3, 0.4], (None, None, 1)),
        ([], [], (None, None, None)),
    ],
)
def test_the_rule(
    hits: list[float], misses: list[float], chosen: tuple[int | None, int | None, int | None]
) -> None:
    found = choose_cases(cases(hits, misses))
    assert list(found) == ["hit", "median hit", "miss"]
    assert tuple(case and case.index for case in found.values()) == chosen


def test_of_equally_confident_cases_the_first_is_taken() -> None:
    found = choose_cases([Case(i, 0.5, i % 2 == 0) for i in range(6)])
    assert {name: case and case.index for name, case in found.items()} == {
        "hit": 0,
        "median hit": 2,
        "miss": 1,
    }


def cell(image: torch.Tensor | None) -> Cell:
    values = torch.zeros(60, 80)
    values[10:20, 50:60] = 1.0
    return Cell("hit", values, torch.tensor([[40.0, 6.0, 70.0, 30.0]]), (55, 15), image)


def box_color() -> np.ndarray:
    return np.array([int(TRUE_BOX[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def columns_with(sheet: Image.Image, color: np.ndarray) -> list[int]:
    found = (np.asarray(sheet) == color).all(axis=2).any(axis=0)
    return np.flatnonzero(found).tolist()


def test_a_cell_is_the_image_and_beside_it_the_map() -> None:
    gray = torch.full((1, 60, 80), 200, dtype=torch.uint8)
    sheet = draw_gallery([("disc: 1 of 1", [cell(gray)])], size=160)
    pixels = np.asarray(sheet)
    place = (pixels == 200).all(axis=2)
    left, right = place[:, GAP : GAP + 160], place[:, 2 * GAP + 160 : 2 * (GAP + 160)]
    # Outside the heat both show the image, and where it is hot only the left one does.
    assert left.sum() > right.sum() > 0.7 * left.sum()
    columns = columns_with(sheet, box_color())
    assert min(columns) == GAP + 2 * 40
    assert max(columns) == GAP + 160 + GAP + 2 * 70 - 1


def test_a_map_without_its_image_shows_none_of_it() -> None:
    sheet = draw_gallery([("disc", [cell(None)] * 3)], size=160)
    assert sheet.width == 3 * (160 + 2 * GAP)
    pixels = np.asarray(sheet)[:, : 160 + 2 * GAP]
    columns = columns_with(Image.fromarray(pixels), box_color())
    assert (min(columns), max(columns)) == (GAP + 80, GAP + 139)
    # Left of the box the map is zero, and of one color.
    left = pixels[:, GAP : GAP + 70]
    assert (left == DARK).all(axis=2).sum() == 120 * 70


def test_colors_go_to_the_highest_value_of_each_map() -> None:
    sure = cell(None)
    assert sure.values is not None
    unsure = replace(sure, values=sure.values / 5)
    none = replace(sure, values=torch.zeros(60, 80))
    sheet = np.asarray(draw_gallery([("disc", [sure, unsure, none])], size=160))
    step = 160 + 2 * GAP
    panels = [sheet[45:-46, i * step + GAP : i * step + GAP + 160].astype(int) for i in range(3)]
    assert np.abs(panels[0] - panels[1]).max() <= 1
    # A map of zeros has no colors.
    dark = [(panel == DARK).all(axis=2).sum() for panel in panels]
    assert dark[2] > dark[0]


def test_empty_cells_keep_their_place() -> None:
    rows = [("disc", [cell(None), Cell("no miss"), cell(None)]), ("ring", [])]
    sheet = draw_gallery(rows, size=96)
    columns = np.array(columns_with(sheet, box_color()))
    step = 96 + 2 * GAP
    assert set(columns // step) == {0, 2}
    assert sheet.height > draw_gallery(rows[:1], size=96).height + 96
