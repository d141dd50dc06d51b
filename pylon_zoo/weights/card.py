"""The model card that is published beside a checkpoint (``README.md`` of its repository)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pylon_zoo.spec import ModelSpec
from pylon_zoo.weights.manifest import Metric, Record

__all__ = [
    "GALLERY_NAME",
    "caption",
    "commands",
    "format_value",
    "intended_use",
    "model_card",
    "results",
    "training",
]

#: A picture of hits and misses, chosen by the rule that :func:`caption` states.
GALLERY_NAME = "gallery.png"

#: Metrics that :func:`results` sets side by side for each class, by what their names begin with.
KINDS = {
    "auroc": "AUROC",
    "point_localization_corners_false": "localization, `corners_false`",
    "point_localization_receptive_field": "localization, `receptive_field`",
    "ece": "ECE",
    "brier": "Brier score",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
MEANS = ("macro", "micro", "weighted")

#: Licences that the Hub knows by their identifiers; others are "other" to it, with a name.
_HUB_LICENSES = (
    "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0", "mit",
)  # fmt: skip

_USE = """\
Research on weakly supervised localization: from image-level labels alone the model learns which
findings an image shows, and its class maps tell where in the image it sees them. Use it to study,
compare and fine-tune such models, and to look at what a classifier responds to.

**Not for clinical use.** This is no medical device. It has not been assessed for safety or
effectiveness in any clinical task, and must not be used to diagnose, to triage or to treat. Its
scores are not calibrated probabilities{calibration}, its maps are not outlines of lesions, and on
images of other devices, populations or findings than those it was trained on both can be wrong
without any sign of it."""

_QUICKSTART = """\
## Quickstart

```bash
pip install pylon-zoo
```

```python
import pylon_zoo
import torch

model = pylon_zoo.load_pretrained("{name}")
transform = pylon_zoo.create_transform(model)

images = transform("image.png")[None]  # (1, {channels}, H, W)
with torch.no_grad():
    probabilities = model(images).logits.sigmoid()[0]  # (K,)
maps = pylon_zoo.get_cam(model, images)  # (1, K, H, W): a score for each class at each pixel
peaks = pylon_zoo.find_peaks(maps).xy[0]  # (K, 2): the highest pixel of each map

for index, (probability, (x, y)) in enumerate(zip(probabilities.tolist(), peaks.tolist())):
    print(f"{{model.spec.class_name(index)}}: {{probability:.2f}}, highest at x={{x}}, y={{y}}")
```

The files are verified by their sha256 each time they are loaded.{pin}"""

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
    load: str,
    sha256: str,
    size: int,
    pictures: Sequence[str] = (),
) -> str:
    """The card, in Markdown with the metadata block that the Hub reads.

    Args:
        spec: the model.
        record: how it came to be and what it is worth; None says that nobody recorded it.
        load: what the quickstart gives to :func:`pylon_zoo.load_pretrained`.
        sha256: of ``model.safetensors``.
        size: of ``model.safetensors``, in bytes.
        pictures: file names of pictures of its class maps, in the same folder.
    """
    pin = f" To stay with today's files,\nappend a commit: `{load}@<commit>`."
    blocks = [
        _metadata(record),
        f"# {spec.name}",
        f"A `{spec.architecture}` model on the timm encoder `{spec.encoder}`, made with "
        f"pylon_zoo: one forward pass gives a score and a class map for each of "
        f"{spec.num_classes} classes.",
    ]
    for picture in pictures:
        blocks.append(f"![Class maps of {spec.name}]({picture})")
        if picture == GALLERY_NAME and record is not None:
            blocks.append(caption(record, spec.name))
    blocks += [
        _architecture(spec),
        "## Intended use",
        intended_use(record),
        _QUICKSTART.format(
            name=load, channels=spec.in_chans, pin=pin if load.startswith("hf-hub:") else ""
        ),
    ]
    if record is None:
        blocks.append(
            "## Training\n\nHow this model was trained, on what data and under which licence, and "
            "how well it does, was not recorded."
        )
    else:
        blocks += [training(record), *results(record), commands(spec, record)]
        blocks.append(f"## License\n\nThe weights: {record.weights_license}.")
    blocks.append(f"## Files\n\n`model.safetensors`: {size:,} bytes, sha256 `{sha256}`")
    blocks.append(_CITATION)
    return "\n\n".join(block for block in blocks if block) + "\n"


def intended_use(record: Record | None) -> str:
    """What the model is for and what not, with the calibration that was measured."""
    found = next((m for m in record.metrics if m.name == "ece_macro"), None) if record else None
    measured = found and (
        f" (on {found.dataset}, {found.split} split, their expected calibration error is "
        f"{found.value:.3f}, the mean over classes; on other images it is unknown)"
    )
    return _USE.format(calibration=measured or "")


def caption(record: Record, name: str) -> str:
    """What a gallery shows and by which rule its images were chosen."""
    measured = record.metrics[0] if record.metrics else None
    images = f"the {measured.split} split of {measured.dataset}" if measured else record.data.name
    text = (
        f"For each class, of the images of {images} that have a box of it: the hit of the highest "
        f"probability, the hit of the median probability, and the miss of the highest probability. "
        f"It is a hit where the map's highest pixel lies in a true box of the class. The images "
        f"were chosen by this rule alone. Full lines: true boxes; ring: the map's highest pixel. "
        "Colors: from 0 to each map's own highest value."
    )
    if not record.data.drawn:
        text += (
            f" The images are not ours, so that maps, boxes and rings are shown without them; "
            f"`python benchmarks/checkpoints.py gallery {name} --root DIR --with-images` draws "
            "them for you."
        )
    return text


def training(record: Record) -> str:
    """How the model was trained, and on what."""
    data = record.data
    splits = "\n".join(f"- {name}: {ids}" for name, ids in data.splits.items())
    source = f"`{data.name}` (`{data.url}`)" if data.drawn else f"[{data.name}]({data.url})"
    return (
        f"## Training\n\n"
        f"Recipe `{record.recipe}` of pylon_zoo {record.project_version}. "
        f"Data: {source}, licence: {data.license}. Splits:\n\n{splits}"
    )


def commands(spec: ModelSpec, record: Record, fence: str = "bash") -> str:
    """What trained and measured the model, and what does so again and compares.

    Args:
        spec: the model; one without a tag is in no manifest, and cannot be compared with it.
        record: of the model.
        fence: what the fence of the commands says.
    """
    lines = list(dict.fromkeys([record.command, *(m.command for m in record.metrics)]))
    text = "Trained and measured by the first commands; the last does both again and compares:"
    if spec.tag:
        root = " --root DIR" if "root=" in record.command else ""
        lines.append(f"pylon-zoo weights reproduce {spec.name}{root}")
    else:
        text = "Trained and measured by:"
    return "\n".join(["## Reproduce", "", text, "", f"```{fence}", *lines, "```"])


def format_value(metric: Metric | None) -> str:
    """``0.949 [0.883, 1.000]``; empty where there is none."""
    if metric is None:
        return ""
    return f"{metric.value:.3f} [{metric.interval[0]:.3f}, {metric.interval[1]:.3f}]"


def results(record: Record) -> list[str]:
    """Sections of what was measured: a row for each class, and calibration and thresholds."""
    if not record.metrics:
        return ["## Results\n\nNothing was measured.", _thresholds(record, {})]
    blocks = []
    for dataset, split in dict.fromkeys((m.dataset, m.split) for m in record.metrics):
        there = [m for m in record.metrics if (m.dataset, m.split) == (dataset, split)]
        measured = _by_kind(there)
        blocks += [
            f"## Results on {dataset}, {split} split",
            _main_table(record, measured),
            _calibration(measured),
            _thresholds(record, measured),
            _others(there),
        ]
    return [*blocks, _precision(record)]


Measured = dict[str, dict[str, Metric]]


def _by_kind(metrics: Sequence[Metric]) -> Measured:
    """Metrics by kind, and there by class or mean."""
    return {
        kind: found
        for kind in KINDS
        if (
            found := {
                m.name.removeprefix(f"{kind}_"): m for m in metrics if m.name.startswith(f"{kind}_")
            }
        )
    }


def _names(measured: Measured, kinds: Sequence[str]) -> list[str]:
    """Classes in the order of the metrics, then means."""
    names = dict.fromkeys(name for kind in kinds for name in measured.get(kind, ()))
    classes = [name for name in names if name not in MEANS]
    return [*classes, *(mean for mean in MEANS if mean in names)]


def _heading(kind: str, measured: Measured) -> str:
    levels = {f"{m.level * 100:g} %" for m in measured[kind].values()}
    return f"{KINDS[kind]} [{', '.join(sorted(levels))}]"


def _main_table(record: Record, measured: Measured) -> str:
    places = [kind for kind in KINDS if kind.startswith("point_") and kind in measured]
    shown = [*(["auroc"] if "auroc" in measured else []), *places]
    if not shown:
        return ""
    names = _names(measured, shown)
    columns: dict[str, list[str]] = {"class": names}
    notes = []
    if "auroc" in measured:
        found = [measured["auroc"].get(name) for name in names]
        columns["n"] = [str(m.support) if m else "" for m in found]
        columns[_heading("auroc", measured)] = list(map(format_value, found))
        chances = {f"{m.chance:.3f}" for m in found if m and m.chance is not None}
        notes.append(
            f"n: items that show the class. AUROC by chance: {', '.join(sorted(chances))}."
        )
    if places:
        first = [measured[places[0]].get(name) for name in names]
        columns["pairs"] = [str(m.support) if m else "" for m in first]
        for kind in places:
            found = [measured[kind].get(name) for name in names]
            columns[_heading(kind, measured)] = list(map(format_value, found))
        columns["chance"] = [
            "" if m is None or m.chance is None else f"{m.chance:.3f}" for m in first
        ]
        notes.append(
            "Localization: the part of pairs of an image and a class with boxes where the map's "
            "highest pixel lies in a box, for both alignments of maps; chance: a pixel taken at "
            "random."
        )
    if record.thresholds:
        columns["threshold"] = [_threshold(record, name) for name in names]
    rows = list(map(list, zip(*columns.values(), strict=True)))
    return _table(list(columns), rows) + "\n\n" + " ".join(notes)


def _threshold(record: Record, name: str) -> str:
    value = (record.thresholds or {}).get(name)
    return "" if value is None else f"{value:.3g}"


def _calibration(measured: Measured) -> str:
    kinds = [kind for kind in ("ece", "brier") if kind in measured]
    if not kinds:
        return ""
    header = ["class", *(_heading(kind, measured) for kind in kinds)]
    names = _names(measured, kinds)
    rows = [[name, *(format_value(measured[kind].get(name)) for kind in kinds)] for name in names]
    if "brier" in kinds:
        header.append("Brier score by chance")
        for row in rows:
            found = measured["brier"].get(row[0])
            row.append("" if found is None or found.chance is None else f"{found.chance:.3f}")
    return (
        "### Calibration\n\n"
        "ECE, the expected calibration error, is the mean distance between the probabilities and "
        "how often the class is there; the Brier score is the mean squared distance of probability "
        "and label. Both are 0 at best. Chance always answers the frequency of the class, and is "
        "calibrated.\n\n" + _table(header, rows)
    )


def _thresholds(record: Record, measured: Measured) -> str:
    if not record.thresholds:
        return ""
    rates = [kind for kind in ("sensitivity", "specificity") if kind in measured]
    names = list(record.thresholds)
    names += [mean for mean in MEANS if any(mean in measured[kind] for kind in rates)]
    rows = [
        [name, _threshold(record, name), *(format_value(measured[k].get(name)) for k in rates)]
        for name in names
    ]
    header = ["class", "threshold", *(_heading(kind, measured) for kind in rates)]
    rule = f" Chosen by {record.thresholds_rule}." if record.thresholds_rule else ""
    return (
        f"### Operating thresholds\n\nA class is called present from this probability on.{rule}"
        f"\n\n{_table(header, rows)}"
    )


def _precision(record: Record) -> str:
    if record.precision is None:
        return ""
    stored = record.precision
    return (
        f"### Precision\n\nThe weights are stored as {stored.dtype}. Beside the float32 weights "
        f"that were trained, the largest change of any metric above is "
        f"{stored.largest_change:.4f} (`{stored.metric}`)."
    )


def _others(metrics: Sequence[Metric]) -> str:
    """Metrics that the tables above do not know."""
    rest = [m for m in metrics if not m.name.startswith(tuple(f"{kind}_" for kind in KINDS))]
    if not rest:
        return ""
    rows = [
        [m.name, format_value(m), "" if m.chance is None else f"{m.chance:.3f}", str(m.support)]
        for m in rest
    ]
    return _table(["metric", f"value [{rest[0].level * 100:g} %]", "chance", "n"], rows)


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
