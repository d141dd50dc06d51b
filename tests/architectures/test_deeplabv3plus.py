from __future__ import annotations

from architectures.base import ArchitectureTester


class TestDeepLabV3Plus(ArchitectureTester):
    architecture = "deeplabv3plus"
    params = (({}, 26_674_654), ({"global_context": False}, 26_084_318))
