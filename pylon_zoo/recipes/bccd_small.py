"""PYLON on tiles of blood smears, in 2 MiB.

pylon-zoo train bccd_small --set root=DIR --output runs/bccd_small

Hardware: one thread of a CPU, about ten minutes.
Expected score: that of the checkpoint pylon_dla46_c.bccd, in weights_manifest.json;
pylon-zoo weights reproduce pylon_dla46_c.bccd --root DIR compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import bccd

# Of tiles of 128 px, many hold no red cell, so that their label says where one is.
RECIPE = replace(bccd.RECIPE, model="pylon_dla46_c", tile=128, learning_rate=2e-3)
