"""From class maps to places and pictures."""

from pylon_zoo.heatmaps.alignment import ALIGNMENTS, receptive_field_offset, resize_maps
from pylon_zoo.heatmaps.cam import get_cam
from pylon_zoo.heatmaps.methods import METHODS
from pylon_zoo.heatmaps.overlay import plot_cam
from pylon_zoo.heatmaps.peaks import Peaks, find_peaks

__all__ = [
    "ALIGNMENTS",
    "METHODS",
    "Peaks",
    "find_peaks",
    "get_cam",
    "plot_cam",
    "receptive_field_offset",
    "resize_maps",
]
