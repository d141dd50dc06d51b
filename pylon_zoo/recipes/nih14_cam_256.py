"""NIH Chest X-ray 14 at 256 px: a max-pooled CAM on the encoder alone, the paper's backbone.

pylon-zoo train nih14_cam_256 --set root=DIR

A run of the PYLON paper (arXiv 2010.11475), on ResNet-50 from ImageNet.
Hardware: one CUDA GPU; its memory and time were not measured here.
Expected score: point localization (micro) 0.45 on the test list, from the paper's authors. This
repository has not repeated it.
"""

from dataclasses import replace

from pylon_zoo.recipes import nih14_pylon_256

RECIPE = replace(nih14_pylon_256.RECIPE, model="cam_resnet50")
