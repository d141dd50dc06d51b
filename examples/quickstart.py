"""Create, load, look: what is in an image, and where.

    python examples/quickstart.py [IMAGE]

Without an image, it draws a radiograph phantom. Not for clinical use.
"""

import sys

import torch

import pylon_zoo
from pylon_zoo.data import Phantom

# Any architecture on any timm encoder, with random weights: for your own training.
model = pylon_zoo.create_model("pylon_resnet18", num_classes=3, in_chans=1)
logits, maps = model(torch.randn(2, 1, 256, 256))
print(f"new model: logits {tuple(logits.shape)}, maps {tuple(maps.shape)}")

# A checkpoint: it carries its classes and says what its input must look like.
model = pylon_zoo.load_pretrained("pylon_dla46_c.phantom")
print(f"loaded {model.spec.name}: {', '.join(model.spec.class_names)}")

# An image, as a batch of one.
source = sys.argv[1] if len(sys.argv) > 1 else Phantom("test")[4]
transform = pylon_zoo.create_transform(model)
image = transform(source) if isinstance(source, str) else transform(source).image
images = image[None]

# Probability of each class, and the pixel where its map is highest.
with torch.no_grad():
    probabilities = model(images).logits.sigmoid()[0]
cam = pylon_zoo.get_cam(model, images)
peaks = pylon_zoo.find_peaks(cam)
print(f"class maps in image pixels: {tuple(cam.shape)}")
for k, name in enumerate(model.spec.class_names):
    x, y = peaks.xy[0, k].tolist()
    print(f"{name:15} {probabilities[k]:.3f}  highest at x {x}, y {y}")
