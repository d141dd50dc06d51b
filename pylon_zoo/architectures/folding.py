"""Batch norm folded into the convolution before it, while a network evaluates.

In eval mode a batch norm is a fixed affine map of each channel, and so can be taken into the
filters: ``norm(conv(x)) = conv'(x)``. The folded filters live no longer than the call that uses
them. Making them anew each time costs about as much as one pass over the weights, and keeps what
is computed true of the parameters whatever has happened to them since.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ["Pair", "find_pairs", "run_folded"]


class Pair(NamedTuple):
    """A convolution whose output nothing but one batch norm takes.

    Attributes:
        conv: dotted name of the :class:`torch.nn.Conv2d`.
        norm: of the :class:`torch.nn.BatchNorm2d`.
        observers: of all modules whose hooks would see what lies between the two.
    """

    conv: str
    norm: str
    observers: tuple[str, ...]


def find_pairs(network: nn.Module, compute: Callable[[], Any]) -> tuple[Pair, ...]:
    """Pairs of a network that can be folded, found by watching what happens to tensors.

    Args:
        network: in eval mode.
        compute: runs it once; hooks take no notice.
    """
    with torch.no_grad(), _without_hooks(network), _Watch(network) as watch:
        compute()
    return tuple(
        Pair(conv, norms[0], _observers(conv, norms[0]))
        for conv, norms in watch.uses.items()
        if len(norms) == 1 and norms[0]
    )


@contextmanager
def _without_hooks(network: nn.Module) -> Iterator[None]:
    kept = [(m, m._forward_hooks, m._forward_pre_hooks) for m in network.modules()]
    for module, _, _ in kept:
        module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for module, after, before in kept:
            module._forward_hooks, module._forward_pre_hooks = after, before


def run_folded(
    network: nn.Module, pairs: tuple[Pair, ...], compute: Callable[[], Tensor]
) -> Tensor | None:
    """What ``compute()`` gives, with the pairs folded; None if the network is wired otherwise."""
    modules = dict(network.named_modules())
    present: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    for pair in pairs:
        conv, norm = modules.get(pair.conv), modules.get(pair.norm)
        if (
            isinstance(conv, nn.Conv2d)
            and isinstance(norm, nn.BatchNorm2d)
            and norm.running_mean is not None
            and not norm.training
            and not any(_is_watched(modules[name]) for name in pair.observers)
        ):
            present.append((conv, norm))
    with _Fold(present) as fold:
        result = compute()
    return None if fold.pending else result


class _Watch(TorchFunctionMode):
    """Notes which functions take the outputs of convolutions.

    Attributes:
        uses: by the name of a convolution, for each function that makes a tensor of its output the
            name of the batch norm that this was, or an empty string.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.uses: dict[str, list[str]] = {}
        self._convs = {
            id(m.weight): name for name, m in network.named_modules() if isinstance(m, nn.Conv2d)
        }
        self._norms = {
            id(m.running_mean): name
            for name, m in network.named_modules()
            if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None
        }
        # The tensors themselves are kept, so that no other one can take over an id.
        self._outputs: dict[int, tuple[str, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
            for leaf in tree_leaves((args, kwargs)):
                if id(leaf) in self._outputs:
                    norm = self._norms.get(id(args[1]), "") if func is F.batch_norm else ""
                    self.uses[self._outputs[id(leaf)][0]].append(norm)
        if func is F.conv2d and len(args) >= 3 and id(args[1]) in self._convs:
            name = self._convs[id(args[1])]
            # One that runs twice has the uses of both runs, and is left alone.
            self.uses.setdefault(name, [])
            self._outputs[id(output)] = name, output
        return output


class _Fold(TorchFunctionMode):
    """Replaces the convolution of each pair by the folded one, and its batch norm by nothing.

    Attributes:
        pending: folded outputs by the id of the running mean that they were meant for, until its
            batch norm takes them.
    """

    def __init__(self, pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> None:
        super().__init__()
        self._norms = {id(conv.weight): norm for conv, norm in pairs}
        self.pending: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d and len(args) >= 3 and id(args[1]) in self._norms:
            images, weight, bias, *rest = args
            norm = self._norms[id(weight)]
            output: Tensor = func(images, *_folded(weight, bias, norm), *rest, **kwargs)
            self.pending[id(norm.running_mean)] = output
            return output
        if func is F.batch_norm and self.pending.get(id(args[1])) is args[0]:
            return self.pending.pop(id(args[1]))
        return func(*args, **kwargs)


def _folded(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The weight and bias of a convolution that does what the batch norm does after it."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None  # of a pair
    assert variance is not None
    wide = torch.promote_types(weight.dtype, mean.dtype)
    scale = (variance.to(wide) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean * scale if bias is None else (bias - mean) * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    return (weight * scale.view(-1, 1, 1, 1)).to(weight.dtype), shift.to(weight.dtype)


def _observers(first: str, second: str) -> tuple[str, ...]:
    """All modules that hold one of the two, or are it, but do not hold both."""

    def above(name: str) -> set[str]:
        parts = name.split(".")
        return {".".join(parts[: i + 1]) for i in range(len(parts))}

    return tuple(sorted(above(first) ^ above(second)))


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
