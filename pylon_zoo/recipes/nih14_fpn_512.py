"""NIH Chest X-ray 14 at 512 px: FPN with batch norm, the paper's repaired version.

pylon-zoo train nih14_fpn_512 --set root=DIR

A run of the PYLON paper (arXiv 2010.11475), on ResNet-50 from ImageNet.
Hardware: one CUDA GPU; its memory and time were not measured here. Where memory runs out,
--set accumulation=4.
Expected score: none is known here; the paper's numbers were not copied, and this repository has not
repeated it.
"""

from dataclasses import replace

from pylon_zoo.recipes import nih14_fpn_256

RECIPE = replace(nih14_fpn_256.RECIPE, image_size=512)
