"""Tries every model of the installed timm as an encoder and writes down what it takes.

    python -m pylon_zoo.architectures.survey

Nothing is downloaded, and nearly nothing computed: models are built on the meta device, but for the
smallest of each family. The file it writes is what :mod:`pylon_zoo.encoders` reads; run it again
when timm has new models.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import timm
import torch

from pylon_zoo.architectures.encoder import STRIDES, describe, size_limits, takes_size
from pylon_zoo.encoders import SURVEY_PATH

__all__ = ["examine", "examine_all", "main"]

#: Channels of the images that are tried; radiographs have one.
IN_CHANS = 1


def examine(name: str, device: str = "meta") -> dict[str, Any]:
    """The record of one timm model; without ``dilates`` it cannot serve as an encoder.

    Args:
        name: a timm model.
        device: on ``"cpu"`` a model is also run with values, which shows more and takes longer.
    """
    model = _build(name, device)
    record = describe(name, model)
    if not set(STRIDES) <= set(record["strides"]):
        return record
    limits = size_limits(model, IN_CHANS)
    if limits is None:
        return {**record, "strides": []}
    size = limits.get("img_size", (2 * max(limits.get("multiple", 1), 32),) * 2)
    record |= {"dilates": _dilates(name, size), **limits}
    if limits:
        record["adjustable"] = _adjusts(name, (size[0], 2 * size[1]))
    return record


def examine_all(names: list[str]) -> dict[str, dict[str, Any]]:
    """The records of many models: on the meta device, but for families that need values.

    The smallest encoder of each family is examined on the CPU too; where that tells more, the whole
    family is.
    """
    records = {name: examine(name) for name in names}
    families: dict[str, list[str]] = {}
    for name, record in records.items():
        if "dilates" in record:
            families.setdefault(record["family"], []).append(name)
    for members in families.values():
        smallest = min(members, key=lambda name: records[name]["params"])
        if examine(smallest, "cpu") != records[smallest]:
            records |= {name: examine(name, "cpu") for name in members}
    return records


def _build(name: str, device: str = "meta", **options: Any) -> Any:
    with torch.device(device):
        model = timm.create_model(name, features_only=True, in_chans=IN_CHANS, **options)
    return model.eval()


def _dilates(name: str, size: tuple[int, int]) -> bool:
    try:
        model = _build(name, output_stride=16)
    except (AssertionError, NotImplementedError, TypeError, ValueError):
        return False
    return max(model.feature_info.reduction()) == 16 and takes_size(model, IN_CHANS, *size)


def _adjusts(name: str, size: tuple[int, int]) -> bool:
    try:
        model = _build(name, img_size=size)
    except (AssertionError, TypeError, ValueError):
        return False
    return takes_size(model, IN_CHANS, *size)


def main() -> None:
    """Survey all models and write :data:`pylon_zoo.encoders.SURVEY_PATH`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's, about models that it is to rename
        records = examine_all(timm.list_models())
    lines = {
        part: ",\n".join(
            f"{json.dumps(name)}: {json.dumps(record)}"
            for name, record in records.items()
            if ("dilates" in record) == (part == "encoders")
        )
        for part in ("encoders", "refused")
    }
    body = ",\n".join(f"{json.dumps(part)}: {{\n{text}\n}}" for part, text in lines.items())
    SURVEY_PATH.write_text(f'{{"timm": {json.dumps(timm.__version__)},\n{body}}}\n', "utf-8")


if __name__ == "__main__":
    main()
