"""PYLON on a small copy of NIH Chest X-ray 14 (946 radiographs), from the phantoms' weights.

pylon-zoo train nih14_mini --set root=DIR --output runs/nih14_mini

Hardware: a CPU; its time was not measured here.
Expected score: none is known. So few radiographs show that the pipeline works, not what PYLON can.
"""

from pylon_zoo.training.config import TrainingConfig

RECIPE = TrainingConfig(
    model="pylon_regnetx_002",
    weights="pylon_regnetx_002.phantom",
    data="nih14",
    epochs=20,
    batch_size=16,
    optimizer="adamw",
    learning_rate=3e-4,
    weight_decay=0.05,
    schedule="cosine",
    ema_decay=0.99,
    clip_norm=1.0,
)
