"""Tensors and arrays in, numbers out; never sees a model."""

from pylon_zoo.metrics.accumulator import Accumulator
from pylon_zoo.metrics.bootstrap import Estimate
from pylon_zoo.metrics.boxes import boxes_from_maps, component_boxes
from pylon_zoo.metrics.classification import (
    ClassScores,
    auroc,
    auroc_report,
    average_precision,
    average_precision_report,
    brier_report,
    brier_score,
    calibration_error,
    calibration_report,
    operating_points,
    operating_points_report,
    roc_curve,
    roc_report,
)
from pylon_zoo.metrics.localization import (
    BoxAccuracy,
    MapOverlap,
    MaskOverlap,
    PixelPrecision,
    PointLocalization,
)
from pylon_zoo.metrics.otsu import otsu_masks

__all__ = [
    "Accumulator",
    "BoxAccuracy",
    "ClassScores",
    "Estimate",
    "MapOverlap",
    "MaskOverlap",
    "PixelPrecision",
    "PointLocalization",
    "auroc",
    "auroc_report",
    "average_precision",
    "average_precision_report",
    "boxes_from_maps",
    "brier_report",
    "brier_score",
    "calibration_error",
    "calibration_report",
    "component_boxes",
    "operating_points",
    "operating_points_report",
    "otsu_masks",
    "roc_curve",
    "roc_report",
]
