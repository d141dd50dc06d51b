from __future__ import annotations

import torch
from architectures.base import ArchitectureTester

from pylon_zoo import create_model


class TestCAM(ArchitectureTester):
    architecture = "cam"
    params = (({}, 23_530_446), ({"pooling": "avg"}, 23_530_446))


def test_average_pooling_is_the_classic_cam() -> None:
    """A linear head commutes with the mean: maps pooled equal pooled features classified."""
    model = create_model("cam_test_resnet", pooling="avg").double().eval()
    images = torch.randn(2, 1, 96, 130).double()
    with torch.no_grad():
        output = model(images)
        pooled = model.encoder(images)[32].mean((-2, -1), keepdim=True)
        torch.testing.assert_close(output.logits, model.head(pooled).flatten(1))
    assert output.maps.shape == (2, 14, 3, 5)
