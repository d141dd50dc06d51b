"""FPN with batch norm on small tiles of radiograph phantoms: where nih14_mini_fpn starts from.

pylon-zoo train phantom_tiles_fpn --output runs/phantom_tiles_fpn

Hardware: one thread of a CPU, about ten minutes.
Expected score: that of the checkpoint fpn_dla46_c.phantom_tiles, in weights_manifest.json;
pylon-zoo weights reproduce fpn_dla46_c.phantom_tiles compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import phantom_tiles

RECIPE = replace(phantom_tiles.RECIPE, model="fpn_dla46_c")
