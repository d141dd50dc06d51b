"""Peak memory of loading a checkpoint, as a multiple of its weights' bytes.

python benchmarks/load_memory.py [--model pylon_resnet50]

Each way of loading runs in a process of its own. What is printed is the peak of its resident
memory above what it held once everything was imported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SAVE = """
import sys
from pylon_zoo import create_model, save_pretrained
save_pretrained(create_model(sys.argv[1]), sys.argv[2])
"""

MEASURE = """
import json, resource, sys
from pathlib import Path
import timm, torch
from safetensors.torch import load_file
from pylon_zoo.registry import build_model
from pylon_zoo.weights.config import read_config
from pylon_zoo.weights.load import load_pretrained

torch.zeros(1) + 1  # the allocator and the kernels' tables belong to the bare import
resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
way, folder = sys.argv[1:]
if way == "load_pretrained":
    model = load_pretrained(folder)
else:
    model = build_model(read_config(folder).spec)
    model.load_state_dict(load_file(folder + "/model.safetensors"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"resident": resident, "peak": peak}))
"""


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pylon_resnet50")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        run(SAVE, model, folder)
        size = (Path(folder) / "model.safetensors").stat().st_size
        print(f"{model}: {size / 1e6:.1f} MB of weights, float32")
        for way, label in {
            "load_pretrained": "load_pretrained",
            "usual": "build, load_file, load_state_dict",
        }.items():
            seen = json.loads(run(MEASURE, way, folder))
            above = seen["peak"] - seen["resident"]
            print(
                f"  {label:34s} peak {above / 1e6:6.1f} MB above {seen['resident'] / 1e6:.1f} MB: "
                f"{above / size:.2f} x the weights"
            )


if __name__ == "__main__":
    main()
