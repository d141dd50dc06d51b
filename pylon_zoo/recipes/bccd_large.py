"""PYLON on tiles of blood smears, on an encoder that keeps its resolution.

pylon-zoo train bccd_large --set root=DIR --output runs/bccd_large

Hardware: one thread of a CPU, about ten minutes.
Expected score: that of the checkpoint pylon_hrnet_w18_small.bccd, in weights_manifest.json;
pylon-zoo weights reproduce pylon_hrnet_w18_small.bccd --root DIR compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import bccd_small

RECIPE = replace(bccd_small.RECIPE, model="pylon_hrnet_w18_small")
