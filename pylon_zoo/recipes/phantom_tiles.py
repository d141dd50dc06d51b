"""PYLON on small tiles of radiograph phantoms, in 2 MiB: where phantom_small starts from.

pylon-zoo train phantom_tiles --output runs/phantom_tiles

Hardware: one thread of a CPU, less than five minutes.
Expected score: that of the checkpoint pylon_dla46_c.phantom_tiles, in weights_manifest.json;
pylon-zoo weights reproduce pylon_dla46_c.phantom_tiles compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import phantom

RECIPE = replace(
    phantom.RECIPE, model="pylon_dla46_c", tile=128, tiles_per_epoch=2048, ema_decay=0.99
)
