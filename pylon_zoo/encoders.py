"""What a survey found of timm's models as encoders; plain data, so that nothing needs torch.

``python -m pylon_zoo.architectures.survey`` makes the file that is read here.
"""

from __future__ import annotations

import difflib
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["SURVEY_PATH", "similar_encoders", "survey"]

SURVEY_PATH = Path(__file__).parent / "architectures" / "encoders.json"


@lru_cache(maxsize=1)
def survey() -> dict[str, Any]:
    """The survey: timm's version, ``"encoders"`` and ``"refused"``, each by name.

    A record holds ``family`` (timm's module), ``params`` (with one input channel) and ``strides``
    of the features. An encoder's also holds ``dilates`` (its last stage can be dilated to stride
    16) and, where it does not take every size of 64 px or more, ``multiple`` (of which both sides
    must be) or ``img_size`` (the only size), and whether it is ``adjustable``: can be built for
    another size by ``img_size=``.
    """
    content: dict[str, Any] = json.loads(SURVEY_PATH.read_text(encoding="utf-8"))
    return content


def similar_encoders(
    name: str, family: str, params: int, *, dilates: bool = False, count: int = 3
) -> list[str]:
    """Names of encoders that work, nearest first: by family, then by name and size.

    Args:
        name: the encoder that does not work.
        family: the timm module that defines it, e.g. ``"vision_transformer"``.
        params: its number of parameters.
        dilates: only encoders that can be dilated to stride 16.
        count: how many names at most.
    """

    def distance(other: str) -> tuple[bool, float]:
        record = encoders[other]
        likeness = difflib.SequenceMatcher(None, name, other).ratio()
        size = abs(math.log2(max(record["params"], 1) / max(params, 1)))
        return record["family"] != family, size - 4 * likeness

    encoders = survey()["encoders"]
    works = [e for e, r in encoders.items() if e != name and (r["dilates"] or not dilates)]
    return sorted(works, key=distance)[:count]
