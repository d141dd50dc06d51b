"""PYLON on a small copy of NIH Chest X-ray 14 (946 radiographs), from phantoms and beside them.

pylon-zoo train nih14_mini --set root=DIR --output runs/nih14_mini

Hardware: one thread of a CPU, about half an hour.
Expected score: that of the checkpoint pylon_dla46_c.nih14, in weights_manifest.json;
pylon-zoo weights reproduce pylon_dla46_c.nih14 --root DIR compares.
"""

from pylon_zoo.training.config import TrainingConfig

RECIPE = TrainingConfig(
    model="pylon_dla46_c",
    weights="pylon_dla46_c.phantom_tiles",
    data="nih14",
    # So few radiographs alone teach to classify, by whatever tells their sources apart, but not to
    # localize (docs/benchmark.md measures what phantoms do for them).
    also="phantom",
    augmentation="paper",
    epochs=14,
    batch_size=16,
    optimizer="adamw",
    learning_rate=4e-4,
    weight_decay=0.05,
    schedule="cosine",
    ema_decay=0.99,
    clip_norm=1.0,
    precision="bf16",
)
