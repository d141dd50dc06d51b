"""PYLON on a small copy of NIH Chest X-ray 14, as in nih14_mini but on twice as large an encoder.

pylon-zoo train nih14_mini_large --set root=DIR --output runs/nih14_mini_large

Hardware: one thread of a CPU, about ten minutes.
Expected score: that of the checkpoint pylon_regnetx_002.nih14, in weights_manifest.json;
pylon-zoo weights reproduce pylon_regnetx_002.nih14 --root DIR compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import nih14_mini

RECIPE = replace(nih14_mini.RECIPE, model="pylon_regnetx_002", weights="pylon_regnetx_002.phantom")
