from __future__ import annotations

from architectures.base import ArchitectureTester


class TestUNet(ArchitectureTester):
    architecture = "unet"
    params = (({}, 32_654_414),)
