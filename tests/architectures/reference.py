"""What the authors' implementation computes, and the rule that makes its weights and images.

``fixtures/upstream_outputs.json`` holds one case per published network: its state dict's keys and
shapes, and the logits and map values it gives in float64. Weights and images are drawn from
generators seeded by their names, so none had to be stored.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Case = dict[str, Any]

CASES: list[Case] = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "upstream_outputs.json").read_text()
)


def case_id(case: Case) -> str:
    return f"{case['kind']}-{case['encoder']}"


def state_dict(case: Case) -> dict[str, Tensor]:
    """The authors' state dict of a case, float64."""
    return {key: _tensor(key, shape, case["salt"]) for key, shape in case["keys"].items()}


def images(case: Case) -> Tensor:
    """(B, C, H, W) float64."""
    return torch.from_numpy(_generator(case["salt"] + "image").normal(size=case["input_shape"]))


def check_case(model: nn.Module, case: Case) -> None:
    """The model's logits and maps are the authors', to 1e-9 of their largest magnitude."""
    assert sum(p.numel() for p in model.parameters()) == case["params"]
    with torch.no_grad():
        logits, maps = model(images(case))
    assert list(maps.shape) == case["map_shape"]
    _check_close(logits, case["logits"])
    _check_close(maps.flatten()[case["probe_index"]], case["probe"])
    _check_close(torch.stack([maps.mean(), maps.std()]), [case["map_mean"], case["map_std"]])


def _check_close(received: Tensor, expected: list[Any]) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    assert received.dtype == torch.float64
    assert (received - wanted).abs().max() <= 1e-9 * wanted.abs().max()


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _tensor(key: str, shape: list[int], salt: str) -> Tensor:
    leaf = key.rsplit(".", 1)[1]
    if leaf == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    generator = _generator(salt + key)
    if len(shape) >= 2:
        return torch.from_numpy(
            generator.normal(size=shape) * math.sqrt(2 / math.prod(shape[1:]))  # by the fan-in
        )
    if leaf in ("running_var", "weight"):
        return torch.from_numpy(generator.uniform(0.5, 1.5, size=shape))
    return torch.from_numpy(generator.normal(size=shape) * 0.1)
