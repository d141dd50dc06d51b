from __future__ import annotations

from architectures.base import ArchitectureTester


class TestPAN(ArchitectureTester):
    architecture = "pan"
    params = (({}, 26_259_285), ({"global_context": False}, 25_946_453))
