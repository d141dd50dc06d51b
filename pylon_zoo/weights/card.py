"""The model card that is published beside a checkpoint (``README.md`` of its repository)."""

from __future__ import annotations

import json
import re

from pylon_zoo.spec import ModelSpec
from pylon_zoo.weights.manifest import Record

__all__ = ["model_card"]

#: Licences that the Hub knows by their identifiers; others are "other" to it, with a name.
_HUB_LICENSES = (
    "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0", "mit",
)  # fmt: skip

_USE = """\
## Intended use

Research on weakly supervised localization: from image-level labels alone the model learns which
findings an image shows, and its class maps tell where in the image it sees them. Use it to study,
compare and fine-tune such models, and to look at what a classifier responds to.

**Not for clinical use.** This is no medical device. It has not been assessed for safety or
effectiveness in any clinical task, and must not be used to diagnose, to triage or to treat. Its
scores are not calibrated probabilities, its maps are not outlines of lesions, and on images of
other devices, populations or findings than those it was trained on both can be wrong without any
sign of it."""

_QUICKSTART = """\
## Quickstart

```bash
pip install pylon-zoo
```

```python
import pylon_zoo
import torch

model = pylon_zoo.load_pretrained("hf-hub:{repo_id}")
transform = pylon_zoo.create_transform(model)

images = transform("image.png")[None]  # (1, {channels}, H, W)
with torch.no_grad():
    probabilities = model(images).logits.sigmoid()[0]  # (K,)
maps = pylon_zoo.get_cam(model, images)  # (1, K, H, W): a score for each class at each pixel
peaks = pylon_zoo.find_peaks(maps).xy[0]  # (K, 2): the highest pixel of each map

for index, (probability, (x, y)) in enumerate(zip(probabilities.tolist(), peaks.tolist())):
    print(f"{{model.spec.class_name(index)}}: {{probability:.2f}}, highest at x={{x}}, y={{y}}")
```

The files are verified by their sha256 each time they are loaded. To stay with today's files,
append a commit: `hf-hub:{repo_id}@<commit>`."""

_CITATION = """\
## Citation

```bibtex
@article{preechakul2022pylon,
  title   = {Improved image classification explainability with high-accuracy heatmaps},
  author  = {Preechakul, Konpat and Sriswasdi, Sira and Kijsirikul, Boonserm and
             Chuangsuwanich, Ekapol},
  journal = {iScience},
  volume  = {25},
  number  = {3},
  pages   = {103933},
  year    = {2022},
  note    = {arXiv:2010.11475}
}
```"""


def model_card(
    spec: ModelSpec,
    record: Record | None,
    *,
    repo_id: str,
    sha256: str,
    size: int,
    picture: str | None = None,
) -> str:
    """The card, in Markdown with the metadata block that the Hub reads.

    Args:
        spec: the model.
        record: how it came to be and what it is worth; None says that nobody recorded it.
        repo_id: ``org/repo`` that the quickstart loads.
        sha256: of ``model.safetensors``.
        size: of ``model.safetensors``, in bytes.
        picture: file name of a picture of its class maps, in the same repository.
    """
    blocks = [
        _metadata(record),
        f"# {spec.name}",
        f"A `{spec.architecture}` model on the timm encoder `{spec.encoder}`, made with "
        f"pylon_zoo: one forward pass gives a score and a class map for each of "
        f"{spec.num_classes} classes.",
    ]
    if picture:
        blocks.append(f"![Class maps of {spec.name}, laid over images]({picture})")
    blocks += [
        _architecture(spec),
        _USE,
        _QUICKSTART.format(repo_id=repo_id, channels=spec.in_chans),
    ]
    if record is None:
        blocks.append(
            "## Training\n\nHow this model was trained, on what data and under which licence, and "
            "how well it does, was not recorded."
        )
    else:
        blocks += [_training(record), _metrics(record), _thresholds(record)]
        blocks.append(f"## License\n\nThe weights: {record.weights_license}.")
    blocks.append(f"## Files\n\n`model.safetensors`: {size:,} bytes, sha256 `{sha256}`")
    blocks.append(_CITATION)
    return "\n\n".join(block for block in blocks if block) + "\n"


def _metadata(record: Record | None) -> str:
    lines = ["---"]
    if record is not None:
        license_id = record.weights_license.lower()
        if license_id in _HUB_LICENSES:
            lines.append(f"license: {license_id}")
        else:
            slug = re.sub(r"[^a-z0-9.]+", "-", license_id).strip("-")
            lines += ["license: other", f"license_name: {json.dumps(slug)}"]
    lines += [
        "library_name: pylon_zoo",
        "pipeline_tag: image-classification",
        "tags:",
        "- medical-imaging",
        "- weakly-supervised-localization",
        "- class-activation-map",
        "---",
    ]
    return "\n".join(lines)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in r) + " |" for r in lines
    )


def _architecture(spec: ModelSpec) -> str:
    look = spec.preprocessing
    channels, height, width = look.input_size
    resized = (
        f"resized to {height} x {width} px ({look.interpolation}), whatever its aspect"
        if look.resize == "squash"
        else f"at its own size; it was trained on tiles of {height} x {width} px"
    )
    names = ", ".join(spec.class_names) if spec.class_names else f"{spec.num_classes}, unnamed"
    options = ", ".join(f"{k}={v!r}" for k, v in spec.options.items()) or "the defaults"
    rows = [
        ["architecture", f"`{spec.architecture}`"],
        ["encoder", f"`{spec.encoder}` (timm)"],
        ["options", options],
        ["classes", names],
        ["input", f"{channels} channel(s), {resized}"],
        ["normalization", f"mean {list(look.mean)}, std {list(look.std)} on [0, 1]"],
        ["output", f"logits (B, {spec.num_classes}) and class maps (B, {spec.num_classes}, h, w)"],
    ]
    return "## Architecture\n\n" + _table(["", ""], rows)


def _training(record: Record) -> str:
    data = record.data
    splits = "\n".join(f"- {name}: {ids}" for name, ids in data.splits.items())
    return (
        f"## Training\n\n"
        f"Recipe `{record.recipe}` of pylon_zoo {record.project_version}:\n\n"
        f"```bash\n{record.command}\n```\n\n"
        f"Data: [{data.name}]({data.url}), licence: {data.license}. Splits:\n\n{splits}"
    )


def _metrics(record: Record) -> str:
    if not record.metrics:
        return "## Results\n\nNothing was measured."
    rows = [
        [
            m.name,
            f"{m.value:.3f}",
            f"{m.interval[0]:.3f} to {m.interval[1]:.3f} ({m.level:.0%})",
            "" if m.chance is None else f"{m.chance:.3f}",
            str(m.support),
            f"{m.dataset}, {m.split}",
        ]
        for m in record.metrics
    ]
    header = ["metric", "value", "interval", "chance", "cases", "measured on"]
    commands = "\n".join(dict.fromkeys(m.command for m in record.metrics))
    return f"## Results\n\n{_table(header, rows)}\n\nMeasured by:\n\n```bash\n{commands}\n```"


def _thresholds(record: Record) -> str:
    if not record.thresholds:
        return ""
    rows = [[name, f"{value:.3f}"] for name, value in record.thresholds.items()]
    return "## Operating thresholds\n\nOn the probability, by class:\n\n" + _table(
        ["class", "threshold"], rows
    )
