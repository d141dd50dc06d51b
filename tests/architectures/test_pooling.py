from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from pylon_zoo import create_model
from pylon_zoo.architectures.pooling import POOLINGS, create_pooling
from pylon_zoo.errors import UnknownNameError
from pylon_zoo.registry import ARCHITECTURES


def _maps(bound: float) -> st.SearchStrategy[Tensor]:
    shapes = st.tuples(*(st.integers(1, n) for n in (2, 3, 5, 6)))
    return hnp.arrays(
        np.float32, shapes, elements=st.floats(-bound, bound, width=32), fill=st.nothing()
    ).map(torch.from_numpy)


@pytest.mark.parametrize("name", POOLINGS)
@settings(max_examples=100, deadline=None)
@given(maps=_maps(1e4))
def test_finite_for_any_map(name: str, maps: Tensor) -> None:
    maps.requires_grad_()
    logits = create_pooling(name)(maps)
    assert logits.shape == maps.shape[:2]
    assert logits.isfinite().all()
    logits.sum().backward()
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("value", [-1e4, -90.0, 0.0, 90.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_scores(name: str, value: float, dtype: torch.dtype) -> None:
    """Over equal scores every pooling but mil returns the score itself."""
    maps = torch.full((1, 1, 20, 20), value, dtype=dtype, requires_grad=True)
    logit = create_pooling(name)(maps)
    logit.sum().backward()
    expected, slope = value, 1.0
    if name == "mil":
        # Far below zero N = 400 (1 - m) sigmoid(s), and logit(P) = log(N): its slope is 1.
        # Far above zero all factors are m, and the slope vanishes.
        n = -400 * math.log1p(-0.02 / (1 + math.exp(-value))) if value > -100 else 0.0
        expected = math.log(math.expm1(n)) if n > 1e-30 else math.log(400 * 0.02) + value
        slope = 1.0 if value < 0 else None
    assert logit.dtype == dtype
    assert logit.item() == pytest.approx(expected, rel=1e-6)
    if slope is not None:
        assert maps.grad.sum().item() == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("name", POOLINGS)
@settings(max_examples=50, deadline=None)
@given(maps=_maps(20))
def test_definitions(name: str, maps: Tensor) -> None:
    """Each pooling equals its formula, taken literally in float64, where that is accurate."""
    s = maps.double().flatten(2)
    p = s.sigmoid()
    formulas = {
        "max": lambda: s.max(-1).values,
        "avg": lambda: s.sum(-1) / s.shape[-1],
        "lse": lambda: (10 * s).exp().mean(-1).log() / 10,
        "pcam": lambda: (p * s).sum(-1) / p.sum(-1),
        "mil": lambda: torch.logit(1 - (0.02 * (1 - p) + 0.98).prod(-1)),
    }
    literal = formulas[name]()
    # 1 - prod(q) keeps some 16 digits of 1, not of itself.
    tolerance = 1e-14 / literal.sigmoid().min().item() if name == "mil" else 0.0
    torch.testing.assert_close(
        create_pooling(name)(maps.double()), literal, rtol=1e-9, atol=1e-9 + tolerance
    )


@pytest.mark.parametrize("name", POOLINGS)
def test_gradient_is_the_derivative(name: str) -> None:
    maps = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    for shift in (-30, 0, 5):
        assert torch.autograd.gradcheck(create_pooling(name), maps + shift)


@settings(max_examples=50, deadline=None)
@given(maps=_maps(1e4))
def test_order(maps: Tensor) -> None:
    """avg <= lse <= max, and pcam lies between the least and the greatest score."""
    pooled = {name: create_pooling(name)(maps.double()) for name in POOLINGS}
    slack = 1e-9 * (1 + maps.abs().max())
    assert (pooled["avg"] <= pooled["lse"] + slack).all()
    assert (pooled["lse"] <= pooled["max"] + slack).all()
    assert (pooled["pcam"] <= pooled["max"] + slack).all()
    assert (pooled["pcam"] >= maps.amin((-2, -1)) - slack).all()


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_pooling_on_every_architecture(architecture: str, name: str) -> None:
    model = create_model(f"{architecture}_test_resnet", pooling=name).eval()
    with torch.no_grad():
        output = model(torch.randn(1, 1, 64, 64))
    assert torch.equal(output.logits, create_pooling(name)(output.maps))


def test_unknown_pooling() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'pcam'") as caught:
        create_pooling("pcan")
    assert caught.value.kind == "pooling"
