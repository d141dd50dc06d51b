"""NIH Chest X-ray 14 at 256 px: PAN without global context, the paper's repaired version.

pylon-zoo train nih14_pan_256 --set root=DIR

A run of the PYLON paper (arXiv 2010.11475), on ResNet-50 from ImageNet.
Hardware: one CUDA GPU; its memory and time were not measured here.
Expected score: none is known here; the paper's numbers were not copied, and this repository has not
repeated it.
"""

from dataclasses import replace

from pylon_zoo.recipes import nih14_pylon_256

RECIPE = replace(nih14_pylon_256.RECIPE, model="pan_resnet50", options={"global_context": False})
