"""The CAM twin of :mod:`pylon_zoo.recipes.phantom`: same encoder, data, seed and budget.

pylon-zoo train phantom_cam --output runs/phantom_cam

Hardware: a CPU.
Expected score: what python benchmarks/twins.py phantom --split test
prints for it; no other measurement exists.
"""

from dataclasses import replace

from pylon_zoo.recipes import phantom

RECIPE = replace(phantom.RECIPE, model="cam_regnetx_002")
