import numpy as np
import pytest
from fake_chexlocalize import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pylon_zoo.data.rle import decode_runs, mask_of_runs
from pylon_zoo.errors import InvalidInputError


def literal_decode(text: str, height: int, width: int) -> np.ndarray:
    """Character by character and pixel by pixel."""
    runs: list[int] = []
    at = 0
    while at < len(text):
        number, bits = 0, 0
        while True:
            code = ord(text[at]) - 48
            number += (code % 32) * 2**bits
            bits += 5
            at += 1
            if code < 32:
                break
        if code % 32 >= 16:
            number -= 2**bits
        runs.append(number + runs[-2] if len(runs) > 2 else number)
    mask = np.zeros((height, width), bool)
    position = 0
    for index, run in enumerate(runs):
        for pixel in range(position, position + run):
            mask[pixel % height, pixel // height] = index % 2 == 1
        position += run
    return mask


shapes = arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)


@settings(max_examples=100, deadline=None)
@given(mask=arrays.arrays(bool, shapes), thin=st.integers(1, 7))
def test_decoding_equals_a_literal_one(mask: np.ndarray, thin: int) -> None:
    # Repeated columns make runs long enough for several pieces.
    mask = mask.repeat(thin, 0)
    text = encode(mask)
    decoded = mask_of_runs(decode_runs(text, *mask.shape), *mask.shape).numpy()
    assert np.array_equal(decoded, mask)
    assert np.array_equal(decoded, literal_decode(text, *mask.shape))


def test_masks_of_the_official_release() -> None:
    """What the release has for findings that are absent, by COCO's own encoder."""
    for text, height, width in (("PVWX6", 2320, 2828), ("nefl3", 2022, 2021)):
        assert decode_runs(text, height, width).tolist() == [height * width]
        assert not mask_of_runs(decode_runs(text, height, width), height, width).any()


def test_by_hand() -> None:
    # 2 false, 3 true, 1 false as they are; the fourth, 2 true, as 2 - 3 = -1: all five bits set.
    assert decode_runs("231O", 2, 4).tolist() == [2, 3, 1, 2]
    mask = mask_of_runs(decode_runs("231O", 2, 4), 2, 4)
    assert mask.int().tolist() == [[0, 1, 1, 1], [0, 1, 0, 1]]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "characters from"),
        ("2é1", "characters from"),
        ("2 1", "characters from"),
        ("2p1", "characters from"),
        ("23Q", "the last of them"),
        ("2" + "P" * 7 + "0", "has 8 pieces"),
        ("23", "do not add up to a mask of 4 x 2"),
        ("234", "do not add up"),
        ("2N8", "do not add up"),
    ],
)
def test_damaged_text_is_refused(text: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        decode_runs(text, 2, 4)


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, -1), (2**20, 2**20)])
def test_a_size_beyond_reason_is_refused(height: int, width: int) -> None:
    with pytest.raises(InvalidInputError, match="at least one pixel and at most"):
        decode_runs("0", height, width)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_any_text_decodes_or_is_refused(text: str) -> None:
    try:
        runs = decode_runs(text, 6, 7)
    except InvalidInputError:
        return
    assert mask_of_runs(runs, 6, 7).shape == (6, 7)
    assert int(mask_of_runs(runs, 6, 7).sum()) == runs[1::2].sum()
