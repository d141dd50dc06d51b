"""Poolings that make image-level logits (B, K) of class maps (B, K, h, w)."""

from __future__ import annotations

from torch import Tensor, nn

from pylon_zoo.errors import unknown_name

__all__ = ["POOLINGS", "AvgPooling", "MaxPooling", "create_pooling"]


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


POOLINGS: dict[str, type[nn.Module]] = {"max": MaxPooling, "avg": AvgPooling}


def create_pooling(name: str) -> nn.Module:
    """The pooling of that name; :class:`UnknownNameError` names the nearest where there is none."""
    if name not in POOLINGS:
        raise unknown_name("pooling", name, POOLINGS)
    return POOLINGS[name]()
