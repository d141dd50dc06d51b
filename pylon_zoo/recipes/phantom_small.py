"""PYLON on radiograph phantoms, in 2 MiB.

pylon-zoo train phantom_small --output runs/phantom_small

Hardware: one thread of a CPU, less than five minutes.
Expected score: that of the checkpoint pylon_dla46_c.phantom, in weights_manifest.json;
pylon-zoo weights reproduce pylon_dla46_c.phantom compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import phantom_tiles

# Image-level labels let a map fire anywhere beside a nodule. A start that points at nodules keeps
# doing so, and larger tiles teach what those of 128 px cut off.
RECIPE = replace(
    phantom_tiles.RECIPE,
    weights="pylon_dla46_c.phantom_tiles",
    tile=160,
    epochs=4,
    learning_rate=5e-4,
)
