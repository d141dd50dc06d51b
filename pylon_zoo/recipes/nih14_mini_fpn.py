"""FPN with batch norm on a small copy of NIH Chest X-ray 14, as PYLON in nih14_mini.

pylon-zoo train nih14_mini_fpn --set root=DIR --output runs/nih14_mini_fpn

Hardware: one thread of a CPU, about forty minutes.
Expected score: that of the checkpoint fpn_dla46_c.nih14, in weights_manifest.json;
pylon-zoo weights reproduce fpn_dla46_c.nih14 --root DIR compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import nih14_mini

RECIPE = replace(nih14_mini.RECIPE, model="fpn_dla46_c", weights="fpn_dla46_c.phantom_tiles")
