from __future__ import annotations

import pytest
import torch

from pylon_zoo import find_peaks


def test_peaks_are_x_y_and_score() -> None:
    maps = torch.full((2, 3, 5, 7), -3.0)
    for image in range(2):
        for k in range(3):
            maps[image, k, image + k, 2 * k + image] = 10 * image + k
    peaks = find_peaks(maps)
    assert peaks.xy.tolist() == [[[0, 0], [2, 1], [4, 2]], [[1, 1], [3, 2], [5, 3]]]
    assert peaks.xy.dtype == torch.int64
    assert peaks.score.tolist() == [[0, 1, 2], [10, 11, 12]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_of_equal_pixels_in_reading_order(dtype: torch.dtype) -> None:
    maps = torch.zeros(1, 2, 4, 6, dtype=dtype)
    maps[0, 1, 2, 5] = maps[0, 1, 3, 0] = 1
    peaks = find_peaks(maps)
    assert peaks.xy.tolist() == [[[0, 0], [5, 2]]]
    assert peaks.score.dtype == dtype


def test_peak_of_a_map_below_zero() -> None:
    maps = -torch.arange(12.0).view(1, 1, 3, 4) - 1
    assert find_peaks(maps.flip(-1, -2)).xy.tolist() == [[[3, 2]]]
    assert find_peaks(maps).score.tolist() == [[-1]]
