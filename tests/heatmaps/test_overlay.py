import numpy as np
import pytest
import torch

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.heatmaps.overlay import colorize, draw_overlay


def test_no_heat_leaves_the_image_as_it_is_and_full_heat_colors_it() -> None:
    image = torch.full((1, 600, 520), 0.5)
    heat = torch.zeros(600, 520)
    heat[300:, :] = 1.0
    pixels = np.asarray(draw_overlay(image, heat, opacity=1.0))
    left, right = pixels[:, :520], pixels[:, -520:]
    assert (left == 128).all()
    assert (right[:290] == 128).all()
    assert (right[310:] == colorize(np.ones((1, 1), np.float32))[0, 0]).all()


def test_boxes_and_the_peak_are_drawn_where_they_are() -> None:
    image, heat = torch.zeros(1, 128, 128), torch.zeros(128, 128)
    plain = np.asarray(draw_overlay(image, heat, title="x")).astype(int)
    marked = draw_overlay(image, heat, title="x", peak=(100, 20), boxes=[[10, 30, 50, 60]])
    changed = np.abs(np.asarray(marked).astype(int) - plain).sum(axis=2) > 0
    scale, bar, gap = 4, 28, 8
    assert changed.shape == (128 * scale + bar, 2 * 128 * scale + gap)
    left = changed[:, : 128 * scale]
    rows, columns = np.flatnonzero(left.any(1)), np.flatnonzero(left.any(0))
    assert (columns[0], rows[0]) == (10 * scale, 30 * scale + bar)
    assert (columns[-1], rows[-1]) == (50 * scale, 60 * scale + bar)
    right = changed[: bar + 29 * scale, 128 * scale + gap :]
    rows, columns = np.flatnonzero(right.any(1)), np.flatnonzero(right.any(0))
    assert abs((columns[0] + columns[-1]) / 2 - 100.5 * scale) <= 1
    assert abs((rows[0] + rows[-1]) / 2 - (20.5 * scale + bar)) <= 1


def test_bad_maps() -> None:
    image = torch.zeros(1, 64, 64)
    with pytest.raises(InvalidInputError, match=r"\(32, 32\).*\(64, 64\)"):
        draw_overlay(image, torch.zeros(32, 32))
    with pytest.raises(InvalidInputError, match="sigmoid"):
        draw_overlay(image, torch.full((64, 64), 3.0))
