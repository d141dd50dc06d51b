"""Masks as COCO writes them: run lengths, compressed into a string of printable characters.

Runs go down the columns, from left to right, and are false and true in turn, beginning with false
(https://github.com/cocodataset/cocoapi). From the fourth on a run is written as its difference to
the one before last; a number is written in pieces of five bits, the lowest first, each as the
character of code 48 plus the piece, plus 32 where another piece follows. Bit 16 of the last piece
is its sign.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylon_zoo.data.readers import MAX_PIXELS
from pylon_zoo.errors import InvalidInputError

__all__ = ["decode_runs", "mask_of_runs"]

Runs = NDArray[np.int64]
#: Of one number: enough for runs of 2^34 pixels.
MOST_PIECES = 7


def decode_runs(text: str, height: int, width: int) -> Runs:
    """Lengths of the runs of a mask of that size, (R,), false and true in turn.

    Raises:
        InvalidInputError: the text is no such encoding, or not of a mask of that size.
    """
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise InvalidInputError(
            f"A mask has at least one pixel and at most {MAX_PIXELS}; got {width} x {height}."
        )
    try:
        codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        codes = np.array([-1])
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise InvalidInputError(
            "Compressed run lengths are characters from '0' to 'o', the last of them below 'P'."
        )
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    pieces = ends - starts + 1
    if pieces.max() > MOST_PIECES:
        raise InvalidInputError(f"A run length has {pieces.max()} pieces of five bits.")
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, pieces))
    runs = np.add.reduceat((codes & 31) << place, starts)
    runs -= (codes[ends] >> 4 & 1) << (5 * pieces)
    # Differences to the one before last add up along each of the two kinds of run.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    pixels = height * width
    if runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise InvalidInputError(
            f"The run lengths do not add up to a mask of {width} x {height} px."
        )
    return runs


def mask_of_runs(runs: Runs, height: int, width: int) -> Tensor:
    """The mask, (height, width) bool, of what :func:`decode_runs` returned for that size."""
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return torch.from_numpy(flat.reshape(width, height).T.copy())
