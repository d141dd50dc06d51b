"""PYLON on radiograph phantoms.

pylon-zoo train phantom --output runs/phantom

Hardware: one thread of a CPU, 5 minutes (299 s with seed=2, which gives the bundled checkpoint).
Expected score: what python benchmarks/twins.py phantom --split test
prints for it; no other measurement exists.
"""

from pylon_zoo.training.config import TrainingConfig

RECIPE = TrainingConfig(
    model="pylon_regnetx_002",
    data="phantom",
    augmentation="light",
    epochs=6,
    batch_size=16,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.05,
    schedule="cosine",
    ema_decay=0.998,
    clip_norm=1.0,
    precision="bf16",
)
