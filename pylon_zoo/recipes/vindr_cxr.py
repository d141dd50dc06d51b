"""PYLON on VinDr-CXR at 256 px, from the weights of the NIH recipe (arXiv 2010.11475).

pylon-zoo train nih14_pylon_256 --set root=NIH_DIR --output runs/nih14_pylon_256
pylon-zoo train vindr_cxr --set root=DIR --output runs/vindr_cxr

Trains on 70 % of the official training images, selects on 10 % and holds out 20 %, as the paper's
authors did; which images these are, is this repository's draw.
Hardware: one CUDA GPU; its memory and time were not measured here.
Expected score: none is known here; the paper's numbers were not copied, and this repository has not
repeated it.
"""

from dataclasses import replace

from pylon_zoo.recipes import nih14_pylon_256

RECIPE = replace(
    nih14_pylon_256.RECIPE,
    data="vindr_cxr",
    weights="runs/nih14_pylon_256",
    encoder_pretrained=False,
)
