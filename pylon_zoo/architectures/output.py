"""The one contract: what every model of the zoo takes and returns."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pylon_zoo.architectures.encoder import MIN_SIZE, Encoder
from pylon_zoo.architectures.folding import Pair, find_pairs, run_folded
from pylon_zoo.architectures.layers import init_head
from pylon_zoo.architectures.pooling import create_pooling
from pylon_zoo.errors import InvalidInputError, InvalidOptionError
from pylon_zoo.spec import ModelSpec

__all__ = ["LocalizationModel", "LocalizationOutput", "check_images"]


class LocalizationOutput(NamedTuple):
    """What a model returns.

    Attributes:
        logits: (B, K), raw scores of the image; a sigmoid makes them probabilities.
        maps: (B, K, h, w), raw scores of each place, float32 at least; ``logits`` are pooled
            from them.
    """

    logits: Tensor
    maps: Tensor


class LocalizationModel(nn.Module):
    """An encoder, a decoder that ends in class maps, and a pooling that makes logits of them.

    A subclass builds its decoder in its constructor, calls :meth:`_finish` last, and says in
    :meth:`decode` how features become the input of ``self.head``.

    Attributes:
        map_stride: pixels of the input between two neighbouring cells of a map (of li2018's: of
            the features that its maps are resized from).
        spec: set by :func:`pylon_zoo.create_model`: classes, preprocessing and options.
    """

    architecture: ClassVar[str]
    #: Output strides that the encoder may be built with, the usual one first.
    output_strides: ClassVar[tuple[int, ...]] = (32,)
    map_stride: int
    spec: ModelSpec

    encoder: Encoder
    head: nn.Conv2d
    pooling: nn.Module

    #: Convolutions to fold with their batch norms, once they were looked for.
    _pairs: tuple[Pair, ...] | None = None

    def _finish(self, head: nn.Conv2d, pooling: str) -> None:
        init_head(head)
        self.head = head
        self.pooling = create_pooling(pooling)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, D, h, w), the input of the head."""
        raise NotImplementedError

    def class_maps(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, K, h, w), of the dtype that the head computes in."""
        maps: Tensor = self.head(self.decode(features))
        return maps

    def map_steps(self, image_size: tuple[int, int]) -> tuple[float, float]:
        """Pixels of the input from one cell of a map to the next, (down, across).

        The first cell lies where the encoder's first cell at stride ``map_stride`` lies.
        """
        return self.map_stride, self.map_stride

    def forward(self, images: Tensor) -> LocalizationOutput:
        """Class maps and logits of a batch.

        Args:
            images: (B, C, H, W), floating point, preprocessed (see
                :func:`pylon_zoo.create_transform`); B >= 1, H and W >= 64.

        Raises:
            InvalidInputError: shape or dtype do not fit. Values are not looked at here, since
                that would stall a GPU: :func:`pylon_zoo.get_cam` refuses NaN and infinity.
        """
        compiling = torch.compiler.is_compiling()
        if not compiling:
            check_images(images, self.encoder.in_chans)
            self.encoder.check_size(*images.shape[-2:])
        learning = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        if self.training or learning or compiling or images.device.type != "cpu":
            maps = self.class_maps(self.encoder(images))
        else:
            maps = self._evaluate(images)
        # Under autocast the maps are 16 bit, in which neighbouring cells round to the same value
        # and the maximum is lost; float64 stays float64.
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        return LocalizationOutput(self.pooling(maps), maps)

    def _evaluate(self, images: Tensor) -> Tensor:
        """Class maps in eval mode on the CPU, which waits for memory more than for arithmetic."""
        # Convolutions give features the layout of their input, whatever that of their weights.
        # (contiguous() would leave one channel as it is, which counts as either layout.)
        images = images.to(memory_format=torch.channels_last)
        if torch.is_autocast_enabled("cpu"):
            # 16 bits round folded filters otherwise than filters and norms apart. Training
            # chooses its best epoch by maps computed so, which are to stay what they were.
            return self.class_maps(self.encoder(images)).contiguous()
        if self._pairs is None:
            side = self.encoder.nearest_size(MIN_SIZE, MIN_SIZE)
            sample = images.new_zeros(1, self.encoder.in_chans, *side)
            self._pairs = find_pairs(self, lambda: self.class_maps(self.encoder(sample)))
        maps = run_folded(self, self._pairs, lambda: self.class_maps(self.encoder(images)))
        if maps is None:
            # Somebody has rewired the network since it was looked at.
            self._pairs = None
            maps = self.class_maps(self.encoder(images))
        return maps.contiguous()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Train in less memory: features of strides 2 to 8 are not kept for the backward pass.

        They are most of what a training step remembers and less than half of what it computes
        forward, and are computed a second time when their gradients are due. The numbers stay the
        same, BatchNorm statistics included.

        Raises:
            InvalidOptionError: the encoder is one of the few that are no sequence of stages.
        """
        self.encoder.set_recompute(enable)

    def reset_classifier(
        self, num_classes: int, class_names: tuple[str, ...] | None = None
    ) -> None:
        """Replace the head by a freshly initialized one for ``num_classes`` classes.

        Raises:
            InvalidOptionError: ``num_classes`` is not positive or does not fit ``class_names``.
        """
        if num_classes < 1:
            raise InvalidOptionError(f"num_classes must be at least 1; got {num_classes}.")
        old = self.head
        head = nn.Conv2d(
            old.in_channels,
            num_classes,
            kernel_size=old.kernel_size,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        if hasattr(self, "spec"):
            self.spec = self.spec.with_classes(num_classes, class_names)
        init_head(head)
        self.head = head.train(old.training)

    @property
    def num_classes(self) -> int:
        """K, the number of maps and logits."""
        return self.head.out_channels


def check_images(images: Tensor, in_chans: int | None) -> None:
    """Raise :class:`InvalidInputError` unless ``images`` is a float (B, C, H, W) that fits.

    ``in_chans`` is None for a network that is not the zoo's: any channels and size will do.
    """
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise InvalidInputError(
            f"A model takes a batch of shape (B, C, H, W); got shape {shape}. "
            + ("For a single image, add the batch with images[None]." if images.ndim == 3 else "")
        )
    if shape[0] == 0:
        raise InvalidInputError(f"The batch is empty: shape {shape}. Give at least one image.")
    if in_chans is not None and shape[1] != in_chans:
        raise InvalidInputError(
            f"This model takes {in_chans} channel(s); got {shape[1]} (shape {shape}). "
            f"pylon_zoo.create_transform(model) converts gray and RGB images, or create the model "
            f"with in_chans={shape[1]}."
        )
    if in_chans is not None and min(shape[2:]) < MIN_SIZE:
        raise InvalidInputError(
            f"Images must be at least {MIN_SIZE} px on each side; got {shape[2]} x {shape[3]} "
            f"(height x width). Resize them, e.g. with pylon_zoo.create_transform(model)."
        )
    if not images.dtype.is_floating_point:
        raise InvalidInputError(
            f"Images must be floating point and normalized; got {images.dtype}. "
            f"pylon_zoo.create_transform(model) makes such a tensor from an 8- or 16-bit image."
        )
