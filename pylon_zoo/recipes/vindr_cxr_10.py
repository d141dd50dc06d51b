"""PYLON on 10 % of VinDr-CXR's training images: :mod:`pylon_zoo.recipes.vindr_cxr` with less data.

pylon-zoo train vindr_cxr_10 --set root=DIR --output runs/vindr_cxr_10

Trains on 10 % of the official training images, selects on 20 % and holds out 70 %,
as the paper's authors did; which images these are, is this repository's draw.
Hardware: one CUDA GPU; its memory and time were not measured here.
Expected score: none is known here; this repository has not repeated it.
"""

from dataclasses import replace

from pylon_zoo.recipes import vindr_cxr

RECIPE = replace(vindr_cxr.RECIPE, data="vindr_cxr_10")
