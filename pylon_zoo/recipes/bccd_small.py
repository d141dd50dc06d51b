"""PYLON on tiles of blood smears, in 2 MiB.

pylon-zoo train bccd_small --set root=DIR --output runs/bccd_small

Hardware: one thread of a CPU, about ten minutes.
Expected score: that of the checkpoint pylon_dla46_c.bccd, in weights_manifest.json;
pylon-zoo weights reproduce pylon_dla46_c.bccd --root DIR compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import bccd

# The smaller a tile, the more of them hold no red cell, so that their labels tell where one is; but
# what is trained on tiles of 128 px goes astray on larger ones.
RECIPE = replace(bccd.RECIPE, model="pylon_dla46_c", tile=160, learning_rate=2e-3)
