"""How fast, against what people would use instead; every output is compared before it is timed.

    python benchmarks/speed.py encoder           # one row of the table
    python benchmarks/speed.py all               # every row that is not in results/ yet
    python benchmarks/speed.py all --again       # every row
    python benchmarks/speed.py all --device cuda --batch 64

Writes ``results/speed_{device}.csv`` and the table to the ``.md`` beside it. ``--quick`` takes
small sizes and few repeats, to see that everything runs, and writes to ``--results`` only.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timing import RESULTS, Row, agreement, interleaved, machine, ratio, read_results, write_results
from torch import Tensor, nn

from pylon_zoo import create_model, get_cam, load_pretrained, save_pretrained
from pylon_zoo.data import Phantom
from pylon_zoo.heatmaps import find_peaks
from pylon_zoo.metrics import PointLocalization

#: What bfloat16, which keeps 8 bits of each number, may change in maps of random weights.
BF16_TOLERANCE = 0.1


class Plain(nn.Module):
    """PYLON as its authors run it: contiguous, batch norms apart, D channels upsampled."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
        self.encoder = model.encoder.model
        self.attention, self.ups, self.head = model.attention, model.ups, model.head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> (B, K) and (B, K, H/4, W/4)."""
        *skips, deepest = self.encoder(images)[1:]
        y = self.attend(deepest)
        for up, skip in zip(self.ups, skips[::-1], strict=True):
            y = F.interpolate(y, skip.shape[2:], mode="bilinear", align_corners=True) + up.skip(
                skip
            )
        maps = self.head(y).float()
        return maps.amax((2, 3)), maps

    def attend(self, x: Tensor) -> Tensor:
        """The pyramid attention."""
        a = self.attention
        d1 = a.down1(F.max_pool2d(x, 2, ceil_mode=True))
        d2 = a.down2(F.max_pool2d(d1, 2, ceil_mode=True))
        up = a.up3(a.down3(F.max_pool2d(d2, 2, ceil_mode=True)))
        for conv, level, target in ((a.up2, d2, d2), (a.up1, d1, d1), (None, None, x)):
            up = F.interpolate(up, target.shape[2:], mode="bilinear", align_corners=True)
            up = up if conv is None else conv(level) + up
        return a.mid(x) * up


class Bench:
    """What all rows share: options, model and images, made when they are first asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.batch, self.size, self.classes = options.batch, options.size, options.classes
        self.repeats, self.device, self.quick = options.repeats, options.device, options.quick
        self.name = f"pylon_{options.encoder}"
        self.encoder = options.encoder
        torch.manual_seed(0)
        self.images = torch.randn(self.batch, 1, self.size, self.size, device=self.device)
        self.model = create_model(self.name, num_classes=self.classes).to(self.device).eval()
        _stir(self.model)

    def time(self, **calls: Callable[[], Any]) -> dict[str, list[float]]:
        """Interleaved, without gradients."""
        with torch.no_grad():
            return interleaved(calls, self.repeats, self.device)

    def row(
        self,
        name: str,
        what: str,
        against: str,
        times: dict[str, list[float]],
        *,
        over: bool = False,
        goal: str = "",
        difference: float | None = None,
        note: str = "",
    ) -> Row:
        """A row of ``times["ours"]`` and ``times["theirs"]``: speedup, or ours over theirs."""
        ours, theirs = times["ours"], times["theirs"]
        return Row(
            name,
            what,
            against,
            **ratio(ours, theirs) if over else ratio(theirs, ours),
            unit="x its time" if over else "x faster",
            goal=goal,
            seconds=statistics.median(ours),
            against_seconds=statistics.median(theirs),
            difference=difference,
            repeats=self.repeats,
            note=note,
        )


def _stir(model: nn.Module) -> None:
    """Batch norms that do something, and maps whose values are of size 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)


def bf16_cpu() -> bool:
    """Whether this CPU multiplies bfloat16 by itself."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text(encoding="utf-8") if flags.exists() else ""
    return "avx512_bf16" in text or "amx_bf16" in text


def encoder(b: Bench) -> list[Row]:
    """The forward pass against the bare timm encoder, both channels_last."""
    bare = copy.deepcopy(b.model.encoder.model).to(memory_format=torch.channels_last)
    images = b.images.to(memory_format=torch.channels_last)
    model = copy.deepcopy(b.model).to(memory_format=torch.channels_last)
    with torch.no_grad():
        difference = agreement(model(images).maps, Plain(b.model)(b.images)[1])
    times = b.time(ours=lambda: model(images), theirs=lambda: bare(images))
    what, against = f"`model(x)`, {b.name}, eval, eager", "the bare timm encoder, channels_last"
    return [
        b.row("encoder", what, against, times, over=True, goal="<= 1.21", difference=difference)
    ]


def plain(b: Bench) -> list[Row]:
    """The forward pass against the plain graph, eager."""
    theirs = Plain(b.model)
    with torch.no_grad():
        difference = agreement(b.model(b.images).maps, theirs(b.images)[1])
    times = b.time(ours=lambda: b.model(b.images), theirs=lambda: theirs(b.images))
    what = f"`model(x)`, {b.name}, eval, eager"
    against = "the plain graph, eager"
    return [b.row("plain", what, against, times, goal=">= 1.6", difference=difference)]


def _compiled(b: Bench, name: str, goal: str, bf16: bool) -> list[Row]:
    theirs = Plain(b.model)
    model = torch.compile(copy.deepcopy(b.model).to(memory_format=torch.channels_last))
    images = b.images.to(memory_format=torch.channels_last)

    def ours() -> Any:
        with torch.autocast(b.device, torch.bfloat16, enabled=bf16):
            return model(images)

    with torch.no_grad():
        expected = theirs(b.images)[1]
        difference = agreement(ours().maps, expected, BF16_TOLERANCE if bf16 else 1e-5)
    times = b.time(ours=ours, theirs=lambda: theirs(b.images))
    what = f"`torch.compile(model)`{', bf16' if bf16 else ''}"
    note = "the difference is that of bfloat16 arithmetic, on random weights" if bf16 else ""
    against = "the plain graph, eager, fp32"
    return [b.row(name, what, against, times, goal=goal, difference=difference, note=note)]


def compiled(b: Bench) -> list[Row]:
    """The compiled forward pass against the plain graph."""
    return _compiled(b, "compiled", ">= 2.1", bf16=False)


def compiled_bf16(b: Bench) -> list[Row]:
    """The compiled forward pass under bfloat16 autocast against the plain graph."""
    if b.device == "cpu" and not bf16_cpu():
        print("This CPU has neither avx512_bf16 nor amx_bf16.")
        return []
    return _compiled(b, "compiled-bf16", ">= 3.5", bf16=True)


def bf16(b: Bench) -> list[Row]:
    """The forward pass under bfloat16 autocast against float32, both eager."""
    if b.device == "cpu" and not bf16_cpu():
        print("This CPU has neither avx512_bf16 nor amx_bf16.")
        return []

    def ours() -> Any:
        with torch.autocast(b.device, torch.bfloat16):
            return b.model(b.images)

    with torch.no_grad():
        difference = agreement(ours().maps, b.model(b.images).maps, BF16_TOLERANCE)
    times = b.time(ours=ours, theirs=lambda: b.model(b.images))
    note = "the difference is that of bfloat16 arithmetic, on random weights"
    what = "`model(x)` under bf16 autocast"
    return [
        b.row("bf16", what, "fp32", times, goal=">= 1.6", difference=difference, note=note),
    ]


def cam(b: Bench) -> list[Row]:
    """get_cam of all classes in image pixels against its own forward pass."""
    with torch.no_grad():
        maps = F.interpolate(Plain(b.model)(b.images)[1], b.images.shape[2:], mode="bilinear")
    difference = agreement(get_cam(b.model, b.images), maps)
    times = b.time(ours=lambda: get_cam(b.model, b.images), theirs=lambda: b.model(b.images))
    what = f"`get_cam` of {b.classes} classes in image pixels"
    return [
        b.row("cam", what, "its own forward", times, over=True, goal="<= 1.1",
              difference=difference)
    ]  # fmt: skip


class Logits(nn.Module):
    """A model as the grad-cam package takes it: one that returns a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        return self.model(images)[0]


def gradcam(b: Bench) -> list[Row]:
    """Maps of all classes: native and Grad-CAM, against the grad-cam package class by class."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network = Plain(b.model).to(b.device).eval()
    layer = list(network.encoder.values())[-1]

    def theirs() -> Tensor:
        with GradCAM(Logits(network), [layer]) as package:
            maps = [
                package(b.images, [ClassifierOutputTarget(k)] * b.batch) for k in range(b.classes)
            ]
        return torch.from_numpy(np.stack(maps, axis=1))

    def ours() -> Tensor:
        return get_cam(b.model, b.images, method="gradcam", normalize=True)

    # The package adds 1e-7 to the span of each map before it divides: see the difference.
    difference = agreement(ours(), theirs(), 1e-4)
    calls = {"native": lambda: get_cam(b.model, b.images), "gradcam": ours, "theirs": theirs}
    times = interleaved(calls, b.repeats, b.device)
    against = "grad-cam's GradCAM on the same encoder, looped over classes"
    return [
        b.row(
            "gradcam",
            f"`get_cam` of {b.classes} classes in image pixels",
            against,
            {"ours": times["native"], "theirs": times["theirs"]},
            goal=">= 40",
        ),
        b.row(
            "gradcam",
            f'`get_cam(method="gradcam")`, {b.classes} classes',
            against,
            {"ours": times["gradcam"], "theirs": times["theirs"]},
            goal=">= 12",
            difference=difference,
        ),
    ]


def load(b: Bench) -> list[Row]:
    """load_pretrained, sha256 verified, against reading the bytes and building the encoder."""
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(b.model.cpu(), folder)
        b.model.to(b.device)

        def theirs() -> Any:
            tensors = load_file(f"{folder}/model.safetensors")
            return tensors, timm.create_model(b.encoder, in_chans=1, features_only=True)

        state, tensors = load_pretrained(folder).state_dict(), theirs()[0]
        if not all(torch.equal(state[name], tensor) for name, tensor in tensors.items()):
            raise SystemExit("The loaded weights differ from the file's.")
        times = b.time(ours=lambda: load_pretrained(folder), theirs=theirs)
    against = "`safetensors.torch.load_file` of the same bytes + building the timm encoder"
    return [
        b.row("load", "`load_pretrained`, warm cache", against, times, over=True, goal="<= 1.1",
              difference=0.0, note="load_pretrained also builds the decoder, verifies the sha256 "
              "and refuses values that are not finite")
    ]  # fmt: skip


def start(b: Bench) -> list[Row]:
    """Starting: importing the package, and the command line's help."""
    codes = {
        "pass": "pass",
        "import": "import pylon_zoo",
        "help": "from pylon_zoo.cli.main import main; main(['--help'])",
    }

    def run(code: str) -> Callable[[], Any]:
        command = [sys.executable, "-c", code]
        return lambda: subprocess.run(command, check=True, capture_output=True)

    repeats = max(b.repeats, 3 if b.quick else 21)
    times = interleaved({name: run(code) for name, code in codes.items()}, repeats)
    rows = []
    for name, what, goal in (
        ("import", "`import pylon_zoo`", "<= 60"),
        ("help", "`pylon-zoo --help`", "<= 300"),
    ):
        ours, theirs = times[name], times["pass"]
        rows.append(
            Row(
                "start",
                what,
                "`python -c pass`",
                value=1e3 * (statistics.median(ours) - statistics.median(theirs)),
                unit="ms more",
                goal=goal,
                paired=1e3 * statistics.median(x - y for x, y in zip(ours, theirs, strict=True)),
                seconds=statistics.median(ours),
                against_seconds=statistics.median(theirs),
                repeats=repeats,
            )
        )
    return rows


def training_time(b: Bench) -> list[Row]:
    """A training step against the plain graph's, time."""
    images = b.images
    labels = torch.zeros(b.batch, b.classes, device=b.device)
    calls, losses = {}, {}
    for name in ("ours", "recompute", "theirs"):
        model = copy.deepcopy(b.model).train()
        network: nn.Module = model
        if name == "theirs":
            network = Plain(model).train()
        else:
            network.to(memory_format=torch.channels_last)
            model.set_grad_checkpointing(name == "recompute")
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

        def step(network: Any = network, optimizer: Any = optimizer, name: str = name) -> None:
            x = images if name == "theirs" else images.to(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            loss = F.binary_cross_entropy_with_logits(network(x)[0], labels)
            loss.backward()
            optimizer.step()
            losses.setdefault(name, loss.detach())

        calls[name] = step
    times = interleaved(calls, b.repeats, b.device)
    difference = agreement(losses["ours"], losses["theirs"])
    if b.device == "cpu" and not torch.equal(losses["ours"], losses["recompute"]):
        raise SystemExit("Computing features anew changes the loss.")
    rows = []
    for name, what in (
        ("ours", "training step (Adam), channels_last"),
        ("recompute", "the same with `set_grad_checkpointing()`"),
    ):
        row = {"ours": times[name], "theirs": times["theirs"]}
        rows.append(
            b.row("training-time", what, "the plain graph, same batch", row, difference=difference)
        )
    return rows


#: ru_maxrss would begin with the memory of the process that started this one.
MEMORY = """
import json, resource, sys, time
from pathlib import Path

def peak_memory():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024

"""

TRAIN = (
    MEMORY
    + """
import torch
import torch.nn.functional as F
sys.path.insert(0, sys.argv[1])
from speed import Plain, create_model

way, name, batch, size, classes, device = sys.argv[2:]
torch.zeros(1) + 1
torch.manual_seed(0)
start = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
model = create_model(name, num_classes=int(classes)).to(device)
images = torch.randn(int(batch), 1, int(size), int(size), device=device)
labels = torch.zeros(int(batch), int(classes), device=device)
network = model
if way == "theirs":
    network = Plain(model)
    del model
else:
    model.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    model.set_grad_checkpointing(way == "recompute")
network.train()
optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
for _ in range(2):
    optimizer.zero_grad(set_to_none=True)
    loss = F.binary_cross_entropy_with_logits(network(images)[0], labels)
    loss.backward()
    optimizer.step()
peak = peak_memory()
if device != "cpu":
    start, peak = 0, torch.cuda.max_memory_allocated()
print(json.dumps({"start": start, "peak": peak, "loss": loss.item()}))
"""
)


def training_memory(b: Bench) -> list[Row]:
    """A training step against the plain graph's, peak memory; every one in a process of its own."""
    ways = ("theirs", "ours", "recompute")
    peaks: dict[str, list[float]] = {way: [] for way in ways}
    losses = {}
    folder = str(Path(__file__).parent)
    arguments = [b.name, *map(str, (b.batch, b.size, b.classes)), b.device]
    for _ in range(b.repeats):
        for way in ways:
            command = [sys.executable, "-c", TRAIN, folder, way, *arguments]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seen = json.loads(out)
            peaks[way].append(seen["peak"] - seen["start"])
            losses[way] = torch.tensor(seen["loss"])
    difference = agreement(losses["recompute"], losses["theirs"], 1e-4)
    middle = {way: statistics.median(peaks[way]) for way in ways}
    goals = {"ours": "", "recompute": "<= 0.8"}
    notes = {
        "ours": "",
        "recompute": "peak resident memory above that of the bare imports, after two steps; "
        "set_grad_checkpointing() (recompute=true) is exact to the bit but costs time (see "
        "training-time), so that it is not the default: by default the step keeps what the plain "
        "graph keeps, since projecting classes first would change the bits of trained weights",
    }
    return [
        Row(
            "training-memory",
            "peak memory of a training step"
            + (", `set_grad_checkpointing()`" if way == "recompute" else ", default"),
            "the plain graph, same batch",
            **ratio(peaks[way], peaks["theirs"]),
            unit=f"x its {middle['theirs'] / 1e6:.0f} MB",
            goal=goals[way],
            difference=difference,
            repeats=b.repeats,
            note=notes[way],
        )
        for way in ("ours", "recompute")
    ]


def _boxes(count: int, classes: int, size: int) -> list[tuple[Tensor, Tensor]]:
    """Boxes and their classes for each image: 1.1 an image, as in NIH Chest X-Ray 14."""
    generator = torch.Generator().manual_seed(0)
    boxes = []
    for index in range(count):
        n = 2 if index % 9 == 0 else 1
        low = torch.rand(n, 2, generator=generator) * size * 0.6
        side = (0.1 + 0.3 * torch.rand(n, 2, generator=generator)) * size
        kinds = torch.randint(classes, (n,), generator=generator)
        boxes.append((torch.cat([low, low + side], dim=1), kinds))
    return boxes


def metrics(b: Bench) -> list[Row]:
    """Point localization with its chance and 95 % interval, against a literal loop over images."""
    images, replicates = (40, 50) if b.quick else (880, 1000)
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(16, b.classes, b.size, b.size, generator=generator)
    boxes = _boxes(images, b.classes, b.size)
    names = tuple(map(str, range(b.classes)))

    def ours(count: int = images) -> dict[str, Any]:
        meter = PointLocalization(names)
        for first in range(0, count, len(maps)):
            xy = find_peaks(maps).xy
            for peak, (box, kind) in zip(xy, boxes[first:count], strict=False):
                meter.update(peak, (b.size, b.size), box, kind)
        return meter.compute(replicates=replicates)

    times = interleaved(
        {"ours": ours, "theirs": lambda: _literal(maps, boxes, b.classes, replicates)},
        b.repeats if b.quick else 7,
    )
    report = ours()["micro"]
    expected, intervals = _literal(maps, boxes, b.classes, replicates)
    difference = agreement(
        torch.tensor([report["value"], report["chance"]]), torch.tensor(expected)
    )
    # Other random draws: the same interval but for chance.
    agreement(torch.tensor([report["low"], report["high"]]), torch.tensor(intervals["micro"]), 0.3)
    half = interleaved({"half": lambda: ours(images // 2), "whole": ours}, b.repeats)
    growth = ratio(half["whole"], half["half"])
    return [
        b.row(
            "metrics",
            f"point localization, {images} images x {b.classes} classes at {b.size}², with chance "
            f"and 95 % interval ({replicates} replicates)",
            "a literal loop over images, classes, boxes and replicates",
            times,
            goal=">= 20",
            difference=difference,
            note="the loop's own parts, the arg-max of a map and the mask of a box, are vectorized "
            "too (numpy); what is saved is the loop around them and the replicates",
        ),
        Row(
            "metrics",
            "its time for twice the images",
            "for half of them",
            **growth,
            unit="x",
            goal="<= 2.2",
            repeats=b.repeats,
        ),
    ]


def _literal(
    maps: Tensor, boxes: list[tuple[Tensor, Tensor]], classes: int, replicates: int
) -> tuple[list[float], dict[Any, tuple[float, float]]]:
    """Hit rate and chance over all pairs, and intervals of every mean: one thing at a time."""
    size = maps.shape[-1]
    of_image: list[list[tuple[int, bool]]] = []
    chances = []
    for index, (image_boxes, kinds) in enumerate(boxes):
        of_image.append([])
        for k in range(classes):
            scores = maps[index % len(maps), k].numpy()
            y, x = np.unravel_index(scores.argmax(), scores.shape)
            inside, area = False, np.zeros((size, size), dtype=bool)
            for (x0, y0, x1, y1), kind in zip(image_boxes.tolist(), kinds.tolist(), strict=True):
                if kind == k:
                    inside = inside or (x0 <= x <= x1 and y0 <= y <= y1)
                    rows = slice(math.ceil(y0), math.floor(y1) + 1)
                    area[rows, math.ceil(x0) : math.floor(x1) + 1] = True
            if k in kinds.tolist():
                of_image[-1].append((k, inside))
                chances.append(area.mean())
    value = statistics.fmean(hit for pairs in of_image for _, hit in pairs)
    generator = np.random.default_rng(0)
    draws: dict[Any, list[float]] = {name: [] for name in ("micro", "macro", *range(classes))}
    for _ in range(replicates):
        hits, support = [0] * classes, [0] * classes
        for index in generator.integers(len(boxes), size=len(boxes)):
            for k, hit in of_image[index]:
                hits[k] += hit
                support[k] += 1
        rates = {k: hits[k] / support[k] for k in range(classes) if support[k]}
        for k, rate in rates.items():
            draws[k].append(rate)
        draws["micro"].append(sum(hits) / sum(support))
        draws["macro"].append(statistics.fmean(rates.values()))
    intervals = {name: tuple(np.percentile(d, [2.5, 97.5])) for name, d in draws.items() if d}
    return [value, statistics.fmean(chances)], intervals


def growth(b: Bench) -> list[Row]:
    """How the time of a forward pass grows with pixels and with images."""
    sides = (128, 256) if b.quick else (128, 256, 512, 1024, 2048)
    batches = (1, 2) if b.quick else (1, 2, 4, 8, 16)
    rows = []
    for what, shapes in (
        ("pixels", [(1, side) for side in sides]),
        ("batch", [(batch, 256) for batch in batches]),
    ):
        inputs = {
            f"{n} x {side}²": torch.randn(n, 1, side, side, device=b.device) for n, side in shapes
        }
        with torch.no_grad():
            calls = {name: lambda x=x: b.model(x) for name, x in inputs.items()}
            times = interleaved(calls, b.repeats, b.device)
        middle = {name: statistics.median(times[name]) for name in inputs}
        logs = [(math.log(x.numel()), math.log(middle[name])) for name, x in inputs.items()]
        exponent = statistics.linear_regression(*zip(*logs, strict=True)).slope
        listed = "; ".join(f"{name}: {seconds:.3g} s" for name, seconds in middle.items())
        rows.append(
            Row(
                "growth",
                f"exponent of the forward pass's time in {what}, {next(iter(inputs))} to "
                f"{list(inputs)[-1]}",
                "linear is 1",
                exponent,
                "",
                goal="<= 1.1",
                repeats=b.repeats,
                note=listed,
            )
        )
    return rows


RATE = (
    MEMORY
    + """
import torch
from pylon_zoo import create_model
from pylon_zoo.bulk import find_frames, predict_files

folder, name, classes, device = sys.argv[1:]
model = create_model(name, num_classes=int(classes)).to(device).eval()
files = find_frames([folder])
list(predict_files(model, files[:2]))
started = time.perf_counter()
list(predict_files(model, files))
seconds = time.perf_counter() - started
peak = peak_memory()
print(json.dumps({"rate": len(files) / seconds, "peak": peak}))
"""
)


def rates(b: Bench) -> list[Row]:
    """Images a second and memory of predicting and training: what docs/cost.md is made of."""
    from PIL import Image

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        phantom = Phantom("test")
        for index in range(4 if b.quick else 8):
            image = Image.fromarray(np.asarray(phantom[index].image).squeeze())
            image.resize((1024, 1024)).save(f"{folder}/{index}.png")
        command = [sys.executable, "-c", RATE, folder, b.name, str(b.classes), b.device]
        seen = []
        for _ in range(b.repeats):
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seen.append(json.loads(out))
    what = "1024² PNG to probabilities, peaks and maps in pixels of the file"
    rows.append(("predict", what, seen))
    folder = str(Path(__file__).parent)
    model = copy.deepcopy(b.model).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    labels = torch.zeros(b.batch, b.classes, device=b.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(model(b.images).logits, labels).backward()
        optimizer.step()

    seconds = interleaved({"step": step}, b.repeats, b.device)["step"]
    arguments = [b.name, *map(str, (b.batch, b.size, b.classes)), b.device]
    command = [sys.executable, "-c", TRAIN, folder, "ours", *arguments]
    peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    steps = [{"rate": b.batch / s, "peak": peak["peak"]} for s in seconds]
    rows.append(("train", f"training step, batch {b.batch}, {b.size}²", steps))
    return [
        Row(
            "rates",
            f"{name}: {what}, {b.name}",
            "",
            statistics.median(s[key] * scale for s in seen),
            unit,
            repeats=b.repeats,
        )
        for name, what, seen in rows
        for key, scale, unit in (("rate", 1.0, "images/s"), ("peak", 1e-6, "MB"))
    ]


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "encoder": encoder,
    "plain": plain,
    "compiled": compiled,
    "compiled-bf16": compiled_bf16,
    "bf16": bf16,
    "cam": cam,
    "gradcam": gradcam,
    "load": load,
    "start": start,
    "training-time": training_time,
    "training-memory": training_memory,
    "metrics": metrics,
    "growth": growth,
    "rates": rates,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", choices=[*ROWS, "all"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--encoder", default="resnet50", help="a timm model's name")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--results", type=Path, help="folder of the CSV")
    parser.add_argument("--again", action="store_true", help="rows that are there already, too")
    parser.add_argument("--quick", action="store_true", help="small sizes, two repeats")
    options = parser.parse_args()
    if options.quick:
        options.encoder, options.batch, options.size, options.repeats = "resnet10t", 2, 128, 2
        if options.results is None:
            parser.error("--quick needs --results: its numbers are none to keep")
    torch.set_num_threads(options.threads)
    path = (options.results or RESULTS) / f"speed_{options.device.partition(':')[0]}.csv"
    bench = Bench(options)
    facts = machine(options.device, options.threads) | {
        "settings": f"{bench.name}, batch {bench.batch}, {bench.size}², {bench.classes} classes"
    }
    failed = False
    for name in ROWS if options.row == "all" else [options.row]:
        there = {line["row"] for line in read_results(path)}
        if options.row == "all" and name in there and not options.again:
            continue
        try:
            rows = ROWS[name](bench)
        except (Exception, SystemExit):
            traceback.print_exc()
            failed = True
            continue
        for row in rows:
            goal = f"  (goal {row.goal}: {row.reached})" if row.goal else ""
            print(f"{name:16} {row.value:8.3g} {row.unit}{goal}  {row.what} | {row.against}")
        write_results(path, name, rows, facts)
    sys.exit(failed)


if __name__ == "__main__":
    main()
