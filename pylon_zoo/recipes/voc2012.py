"""PYLON on Pascal VOC 2012 at 256 px, in two phases: the encoder frozen first (arXiv 2010.11475).

pylon-zoo train voc2012 --set root=DIR --output runs/voc2012

Trains on nine tenths of the official train list and selects on the rest, so that the val list is
left to report on; the paper's authors train on all of it and select on val.
Hardware: one CUDA GPU; its memory and time were not measured here.
Expected score: none is known here; the paper's numbers were not copied, and this repository has not
repeated it. That the first phase takes five epochs is this recipe's choice, not the paper's;
so is the augmentation, which leaves out rotation and crops.
"""

from dataclasses import replace

from pylon_zoo.recipes import nih14_pylon_256

RECIPE = replace(
    nih14_pylon_256.RECIPE,
    data="voc2012",
    augmentation="light",
    freeze="encoder",
    frozen_epochs=5,
)
