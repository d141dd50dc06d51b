"""Work that is shared by the processes that torchrun started."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from pylon_zoo.errors import MissingExtraError

__all__ = ["leave_gloo", "process_group", "rank_and_count"]


@contextmanager
def process_group(device: str) -> Iterator[tuple[str, bool]]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Args:
        device: what was asked for, e.g. ``"cpu"`` or ``"cuda"``.

    Yields:
        this process's device, and whether it is the one that writes.

    Raises:
        MissingExtraError: there are several processes, and Accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device, True
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingExtraError("accelerate", "train", "Measuring in several processes") from error
    state = PartialState(cpu=device == "cpu")
    try:
        yield str(state.device), state.is_main_process
    finally:
        state.destroy_process_group()


def leave_gloo() -> None:
    """Leave the group of processes on CPUs, if there is one; to be called when Python exits.

    A thread of Gloo's lets go of a collective's tensors only once it gets Python's lock. If Python
    is gone by then, it takes the process with it: "terminate called without an active exception",
    and torchrun calls the run failed. Without its group, and a model that holds on to that, the
    thread has ended before.
    """
    grouped = distributed.is_available() and distributed.is_initialized()
    if grouped and distributed.get_backend() == "gloo":
        gc.collect()
        distributed.destroy_process_group()


def rank_and_count() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
