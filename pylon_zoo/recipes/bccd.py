"""PYLON on tiles of blood smears.

pylon-zoo train bccd --set root=DIR --output runs/bccd

Hardware: one thread of a CPU, about a quarter of an hour; seed=0 gives the bundled checkpoint.
Expected score: what python benchmarks/twins.py bccd --root DIR --split val
prints for it; no other measurement exists.
"""

from pylon_zoo.training.config import TrainingConfig

RECIPE = TrainingConfig(
    model="pylon_regnetx_002",
    data="bccd",
    augmentation="dihedral",
    epochs=12,
    batch_size=16,
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    schedule="cosine",
    ema_decay=0.998,
    clip_norm=1.0,
    precision="bf16",
)
