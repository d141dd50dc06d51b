"""NIH Chest X-ray 14 at 256 px: PYLON.

pylon-zoo train nih14_pylon_256 --set root=DIR

A run of the PYLON paper (arXiv 2010.11475), on ResNet-50 from ImageNet.
Hardware: one CUDA GPU; its memory and time were not measured here.
Expected score: macro AUROC 0.816 to 0.818, point localization (micro) 0.592 to 0.633 on the test
list, from the paper's authors (their seeds 0 to 4). This repository has not repeated it.
"""

from pylon_zoo.training.config import TrainingConfig

# Epochs, batch, optimizer and schedule are TrainingConfig's defaults: the paper's.
RECIPE = TrainingConfig(
    model="pylon_resnet50",
    data="nih14",
    encoder_pretrained=True,
    augmentation="paper",
    image_size=256,
    precision="fp16",
    workers=8,
)
