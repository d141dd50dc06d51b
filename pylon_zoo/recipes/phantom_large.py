"""PYLON on radiograph phantoms, on an encoder that keeps its resolution.

pylon-zoo train phantom_large --output runs/phantom_large

Hardware: one thread of a CPU, about twenty minutes.
Expected score: that of the checkpoint pylon_hrnet_w18_small.phantom, in weights_manifest.json;
pylon-zoo weights reproduce pylon_hrnet_w18_small.phantom compares.
"""

from dataclasses import replace

from pylon_zoo.recipes import phantom

RECIPE = replace(phantom.RECIPE, model="pylon_hrnet_w18_small")
