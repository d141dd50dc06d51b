"""The CAM twin of :mod:`pylon_zoo.recipes.bccd`: same encoder, data, seed and budget.

pylon-zoo train bccd_cam --set root=DIR --output runs/bccd_cam

Hardware: a CPU.
Expected score: what python benchmarks/twins.py bccd --root DIR --split val
prints for it; no other measurement exists.
"""

from dataclasses import replace

from pylon_zoo.recipes import bccd

RECIPE = replace(bccd.RECIPE, model="cam_regnetx_002")
