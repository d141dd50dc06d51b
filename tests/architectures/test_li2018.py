from __future__ import annotations

import pytest
from architectures.base import ArchitectureTester

from pylon_zoo import LocalizationModel, create_model


class TestLi2018(ArchitectureTester):
    architecture = "li2018"
    params = (({}, 32_947_662),)

    def map_size(self, model: LocalizationModel, height: int, width: int) -> tuple[int, int]:
        return 20, 20


def test_cells_lie_between_the_corners_of_the_features() -> None:
    model = create_model("li2018_test_resnet")
    # 8 x 10 cells at stride 32: the last lies 7 and 9 strides from the first.
    assert model.map_steps((256, 310)) == pytest.approx((7 * 32 / 19, 9 * 32 / 19))
