"""PYLON on radiograph phantoms, in 2 MiB.

pylon-zoo train phantom_small --output runs/phantom_small

Hardware: one thread of a CPU, less than five minutes.
Expected score: that of the checkpoint pylon_dla46_c.phantom, in weights_manifest.json;
pylon-zoo weights reproduce pylon_dla46_c.phantom compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import phantom

RECIPE = replace(
    phantom.RECIPE, model="pylon_dla46_c", tile=128, tiles_per_epoch=2048, ema_decay=0.99
)
