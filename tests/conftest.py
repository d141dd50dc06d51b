"""What several tests share."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def shared_data(name: str) -> Path:
    """A real dataset that lies beside the repository; skips where it is absent."""
    folder = ROOT.parent / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"the real {name} images are not beside this checkout (../shared/data/{name})")
    return folder


@pytest.fixture(scope="session")
def bccd_root() -> Path:
    return shared_data("bccd")


@pytest.fixture(scope="session")
def nih14_root() -> Path:
    return shared_data("nih14")


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Small models compute faster, and workers of pytest-xdist leave each other room."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
