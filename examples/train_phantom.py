"""Fine-tune a checkpoint on other classes, in a loop of your own.

    python examples/train_phantom.py [--steps 60]

The reference loop is ``pylon-zoo train``; this shows that a model of the zoo is a plain
``torch.nn.Module``. It learns to tell phantoms with a mass or an effusion from those without,
and saves the result so that ``load_pretrained`` reads it.
"""

import argparse

import torch

import pylon_zoo
from pylon_zoo.data import Phantom

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--output", default="runs/two_findings")
arguments = parser.parse_args()

torch.manual_seed(0)
classes = ("mass", "effusion")
columns = [Phantom.class_names.index(name) for name in classes]
model = pylon_zoo.create_model(
    "pylon_dla46_c.phantom", pretrained=True, class_names=classes
).train()
transform = pylon_zoo.create_transform(model, train=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
dataset = Phantom("train")

for step in range(arguments.steps):
    indices = range(step * arguments.batch_size, (step + 1) * arguments.batch_size)
    batch = [transform(dataset[index]) for index in indices]
    images = torch.stack([sample.image for sample in batch])
    labels = torch.stack([sample.labels[columns] for sample in batch])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images).logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0 or step == arguments.steps - 1:
        print(f"step {step:3}  loss {loss.item():.3f}")

folder = pylon_zoo.save_pretrained(model.eval(), arguments.output)
print(f"saved; pylon_zoo.load_pretrained({str(folder)!r}) loads it")
