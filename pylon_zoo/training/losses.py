"""What is minimized."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pylon_zoo.data import LocalizationDataset

__all__ = ["balanced_weights", "masked_bce", "smooth"]


def masked_bce(logits: Tensor, labels: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of (B, K) logits over the labels that are known (not NaN).

    Computed in float32 at least; 0 where no label of the batch is known. ``pos_weight`` (K,)
    multiplies the loss of positives.
    """
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(
        logits,
        labels.nan_to_num(0.0).to(logits.dtype),
        pos_weight=pos_weight,
        reduction="none",
    )
    return (losses * known).sum() / known.sum().clamp(min=1)


def smooth(labels: Tensor, smoothing: float) -> Tensor:
    """Labels y moved to y (1 - s) + s / 2 (Szegedy et al. 2016, for two outcomes)."""
    return labels * (1 - smoothing) + smoothing / 2 if smoothing else labels


def balanced_weights(items: LocalizationDataset) -> Tensor:
    """Negatives over positives of each class, (K,) float32; 1 where either is missing.

    Looks at every item once, at its record only where the dataset keeps records.
    """
    known = getattr(items, "records", None) or (items[index] for index in range(len(items)))
    labels = torch.stack([item.labels for item in known])
    positives, negatives = (labels == 1).sum(dim=0), (labels == 0).sum(dim=0)
    weights = negatives / positives.clamp(min=1)
    return torch.where((positives > 0) & (negatives > 0), weights, torch.ones_like(weights))
