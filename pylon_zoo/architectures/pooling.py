"""Poolings that make image-level logits (B, K) of class maps (B, K, h, w).

Each is computed such that neither the logits nor their gradients overflow, whatever the maps.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pylon_zoo.errors import unknown_name

__all__ = [
    "POOLINGS",
    "AvgPooling",
    "LSEPooling",
    "MILPooling",
    "MaxPooling",
    "PCAMPooling",
    "create_pooling",
]


class MaxPooling(nn.Module):
    """The score of the best cell: what PYLON trains with (arXiv 2010.11475, section 3)."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, K)."""
        return maps.amax(dim=(-2, -1))


class AvgPooling(nn.Module):
    """The mean over cells; on a linear head it equals the classic CAM (Zhou et al., CVPR 2016)."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, K)."""
        return maps.mean(dim=(-2, -1))


class LSEPooling(nn.Module):
    """A smooth maximum: log(mean(exp(r s))) / r over the scores s of all cells.

    The log-sum-exp pooling of Pinheiro & Collobert (CVPR 2015); r = 10 served Wang et al. best
    (CVPR 2017, ChestX-ray8). A small r comes near the mean, a large one near the maximum.
    """

    r: ClassVar[float] = 10.0

    def forward(self, maps: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, K)."""
        cells = maps.flatten(2)
        return (_log_sum_exp(self.r * cells) - math.log(cells.shape[-1])) / self.r


class PCAMPooling(nn.Module):
    """The mean score weighed by each cell's probability: sum(p s) / sum(p) with p = sigmoid(s).

    The probabilistic-CAM pooling of Ye et al. (arXiv 2005.14480): weighing the features before a
    linear head, as they write it, equals weighing the maps after it.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, K)."""
        cells = maps.flatten(2)
        # p / sum(p) through logarithms: it is defined even where every p underflows.
        weights = torch.softmax(F.logsigmoid(cells), dim=-1)
        return (weights * cells).sum(dim=-1)


class MILPooling(nn.Module):
    """Multiple-instance learning: an image is positive unless all of its cells are negative.

    P = 1 - prod(q) over all cells, where q = m + (1 - m)(1 - p) brings 1 - p = 1 - sigmoid(s) from
    [0, 1] to [m, 1], m = 0.98, as Li et al. do against underflow (CVPR 2018). Returns logit(P).
    """

    m: ClassVar[float] = 0.98

    def forward(self, maps: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, K)."""
        log_p = F.logsigmoid(maps.flatten(2))
        # q = 1 - u with u = (1 - m) p, and -log q = u (1 + u/2 + u^2/3 + ...). Its logarithm is
        # what can be computed: p may be smaller than any float. u <= 0.02, so that the ninth term
        # is below the precision of float64.
        u = (1 - self.m) * log_p.exp()
        series = sum((u**k / (k + 1) for k in range(1, 8)), start=torch.ones_like(u))
        log_n = _log_sum_exp(math.log(1 - self.m) + log_p + series.log())
        # With N = sum(-log q): logit(P) = log(exp(N) - 1) = N + log(1 - exp(-N)), which for small
        # N is log(N) + N/2 + N^2/24.
        n = log_n.exp()
        large = n.clamp(min=1e-3)
        return torch.where(
            n < 1e-3, log_n + n / 2 + n * n / 24, large + torch.log(-torch.expm1(-large))
        )


def _log_sum_exp(scores: Tensor) -> Tensor:
    """log(sum(exp(scores))) over the last axis, with a gradient that is exact at any magnitude."""
    # torch.logsumexp alone takes exp(score - result) for the gradient: at 1e5, float32 rounds that
    # difference to hundredths.
    top = scores.amax(dim=-1, keepdim=True).detach()
    return torch.logsumexp(scores - top, dim=-1) + top.squeeze(-1)


POOLINGS: dict[str, type[nn.Module]] = {
    "max": MaxPooling,
    "avg": AvgPooling,
    "lse": LSEPooling,
    "pcam": PCAMPooling,
    "mil": MILPooling,
}


def create_pooling(name: str) -> nn.Module:
    """The pooling of that name; :class:`UnknownNameError` names the nearest where there is none."""
    if name not in POOLINGS:
        raise unknown_name("pooling", name, POOLINGS)
    return POOLINGS[name]()
