"""Tensors and arrays in, numbers out; never sees a model."""

from pylon_zoo.metrics.bootstrap import Estimate
from pylon_zoo.metrics.classification import auroc, auroc_report
from pylon_zoo.metrics.localization import PointLocalization

__all__ = ["Estimate", "PointLocalization", "auroc", "auroc_report"]
