from __future__ import annotations

from architectures.base import ArchitectureTester


class TestFPN(ArchitectureTester):
    architecture = "fpn"
    params = (({}, 26_111_438), ({"norm": "group"}, 26_111_438))
