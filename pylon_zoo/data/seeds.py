"""Generators that are independent for every key."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["generator_for"]


def generator_for(*key: int) -> torch.Generator:
    """A CPU generator decided by non-negative integers, e.g. (seed, epoch, index).

    torch's own ``manual_seed`` keeps 32 bits of its argument, so that numbers packed into one
    would be lost; numpy's seed sequence mixes them all.
    """
    state = np.random.SeedSequence(key).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))
