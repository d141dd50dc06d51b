"""The CAM twin of :mod:`pylon_zoo.recipes.bccd`: same encoder, data, seed and budget.

pylon-zoo train bccd_cam --set root=DIR --output runs/bccd_cam
"""

from dataclasses import replace

from pylon_zoo.recipes import bccd

RECIPE = replace(bccd.RECIPE, model="cam_regnetx_002")
