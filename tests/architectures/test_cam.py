from __future__ import annotations

import torch

from pylon_zoo import create_model


def test_published_parameter_count() -> None:
    with torch.device("meta"):
        model = create_model("cam_resnet50", in_chans=1, num_classes=14)
    assert sum(p.numel() for p in model.parameters()) == 23_530_446


def test_average_pooling_is_the_classic_cam() -> None:
    """A linear head commutes with the mean: maps pooled equal pooled features classified."""
    model = create_model("cam_test_resnet", pooling="avg").double().eval()
    images = torch.randn(2, 1, 96, 130).double()
    with torch.no_grad():
        output = model(images)
        pooled = model.encoder(images)[32].mean((-2, -1), keepdim=True)
        torch.testing.assert_close(output.logits, model.head(pooled).flatten(1))
    assert output.maps.shape == (2, 14, 3, 5)
