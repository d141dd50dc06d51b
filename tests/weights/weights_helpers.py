"""A tiny model for the tests."""

from __future__ import annotations

import torch

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.registry import create_model

TINY = "pylon_test_resnet"
CLASSES = ("disc", "ring")


def make_model(seed: int = 0, name: str = TINY, **options: object) -> LocalizationModel:
    """A model with random weights and running statistics that are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options.setdefault("class_names", CLASSES)
        model = create_model(name, **options).eval()  # type: ignore[arg-type]
        for key, tensor in model.state_dict().items():
            if "running_" in key:
                tensor.uniform_(0.5, 1.5)
        return model
