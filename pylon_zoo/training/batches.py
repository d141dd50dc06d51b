"""Batches that do not depend on how many processes load or compute them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pylon_zoo.data import CachedShards, Interleaved, LocalizationDataset, Task, open_task
from pylon_zoo.data.seeds import generator_for
from pylon_zoo.data.tasks import TiledTask
from pylon_zoo.errors import ImageReadError, InvalidInputError, InvalidOptionError, TrainingError
from pylon_zoo.preprocessing import Transform
from pylon_zoo.spec import Preprocessing
from pylon_zoo.training.config import TrainingConfig

__all__ = ["AugmentedBatches", "BadImages", "EpochOrder", "Items", "create_loaders"]

#: Image (C, H, W), labels (K,), the image's name, what is wrong with it (or ""), and what is to
#: become of it on the device (8,), or nothing.
Item = tuple[Tensor, Tensor, str, str, Tensor]
NOTHING = torch.zeros(0)


class Items(Dataset[Item]):
    """(epoch, index) -> an item, its augmentation drawn from (seed, epoch, index).

    An image that cannot be read becomes a gray one whose labels are unknown, so that it weighs
    nothing in the loss; whether the run goes on is for :class:`BadImages` to say.
    """

    def __init__(
        self,
        dataset: LocalizationDataset,
        transform: Transform,
        seed: int,
        *,
        on_device: bool = False,
    ) -> None:
        """Describe the items.

        Args:
            dataset: what they come from.
            transform: makes them.
            seed: of the augmentation.
            on_device: leave augmentation and normalization to :class:`AugmentedBatches`.
        """
        self.dataset, self.transform, self.seed = dataset, transform, seed
        self.on_device = on_device

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        generator, drawn = generator_for(self.seed, epoch, index), NOTHING
        try:
            sample = self.dataset[epoch * len(self.dataset) + index]
            if self.on_device:
                sample = self.transform.prepare(sample)
                drawn = self.transform.draw(sample, generator)
            else:
                sample = self.transform(sample, generator)
        except (ImageReadError, InvalidInputError) as error:
            image = torch.zeros(self.transform.preprocessing.input_size)
            labels = torch.full((len(self.dataset.class_names),), float("nan"))
            drawn = torch.zeros(8) if self.on_device else NOTHING
            return image, labels, f"item {index}", str(error), drawn
        return sample.image, sample.labels, sample.source, "", drawn


class AugmentedBatches:
    """Batches of a loader, augmented and normalized on the device where the loader puts them."""

    def __init__(self, loader: Any, transform: Transform) -> None:
        self.loader, self.transform = loader, transform

    def __iter__(self) -> Iterator[Any]:
        for images, *rest, drawn in self.loader:
            yield (self.transform.finish(images, drawn), *rest, drawn)


class EpochOrder(Sampler[tuple[int, int]]):
    """Indices of an epoch, shuffled by (seed, epoch), or in order for seed None.

    Attributes:
        epoch: whose order comes next.
        done: how many of its items are left out, since they were seen before a resume.
    """

    def __init__(self, items: int, seed: int | None, multiple: int = 1) -> None:
        """Describe the order.

        Args:
            items: how many there are.
            seed: of the shuffling; None for items in order, of epoch 0.
            multiple: a remainder that does not fill so many is dropped.
        """
        self.items, self.seed = items, seed
        self.length = items // multiple * multiple
        self.epoch = self.done = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.seed is None:
            order = list(range(self.items))
        else:
            generator = generator_for(self.seed, self.epoch)
            order = torch.randperm(self.items, generator=generator).tolist()
        return iter([(self.epoch, index) for index in order[self.done : self.length]])


class BadImages:
    """The images that could not be read, of which so many are tolerated."""

    def __init__(self, tolerated: int) -> None:
        self.tolerated = tolerated
        self.problems: list[str] = []

    def note(self, problems: list[str]) -> None:
        """Add what is wrong with the images of a batch.

        Raises:
            TrainingError: more are bad than are tolerated; names them.
        """
        self.problems += [p for p in dict.fromkeys(problems) if p and p not in self.problems]
        if len(self.problems) > self.tolerated:
            raise TrainingError(
                "An image cannot be used:\n  "
                + "\n  ".join(self.problems)
                + f"\nRepair or remove it, or tolerate more with --skip-bad N (skip_bad is "
                f"{self.tolerated})."
            )


def create_loaders(
    config: TrainingConfig, task: Task, preprocessing: Preprocessing, processes: int
) -> tuple[DataLoader[Any], DataLoader[Any], EpochOrder]:
    """Loaders of training and selection batches, and the order of the former.

    Each of the ``processes`` takes every so many-th batch of the training loader; the batches of
    one step, of all processes and pieces, are ``batch_size`` consecutive items of the order.

    Raises:
        InvalidOptionError: ``batch_size`` cannot be shared out evenly, or ``also`` be mixed in.
        CacheError: the cache's images do not fit the preprocessing.
        TrainingError: there are fewer items than a batch takes.
    """
    shares = processes * config.accumulation
    if config.batch_size % shares:
        raise InvalidOptionError(
            f"batch_size={config.batch_size} cannot be shared out evenly among {processes} "
            f"process(es) x accumulation={config.accumulation}; take a multiple of {shares}."
        )
    items, selection_items = task.training(), task.selection()
    for images in (items, selection_items):
        if isinstance(images, CachedShards):
            images.require_transform(preprocessing)
    if config.also:
        items = _mix(items, task, config)
    if len(items) < config.batch_size:
        raise TrainingError(
            f"{task.name} has {len(items)} training items, fewer than one batch takes; set "
            f"batch_size to at most {len(items)}."
        )
    training_preprocessing = replace(
        preprocessing, resize=task.training_resize or preprocessing.resize
    )
    order = EpochOrder(len(items), config.seed, config.batch_size)
    common: dict[str, Any] = {
        "num_workers": config.workers,
        "pin_memory": torch.cuda.is_available(),
    }
    # Starting a loader draws a number: not from the global generator, whose state is then the
    # same whether or not an epoch was resumed.
    training = DataLoader(
        Items(
            items,
            Transform(training_preprocessing, config.augmentation),
            config.seed,
            on_device=config.augment_on == "device",
        ),
        batch_size=config.batch_size // shares,
        sampler=order,
        persistent_workers=config.workers > 0,
        generator=torch.Generator(),
        **common,
    )
    selection = DataLoader(
        Items(selection_items, Transform(preprocessing), config.seed),
        batch_size=config.batch_size,
        sampler=EpochOrder(len(selection_items), seed=None),
        generator=torch.Generator(),
        **common,
    )
    return training, selection, order


def _mix(items: LocalizationDataset, task: Task, config: TrainingConfig) -> Interleaved:
    """The items in turns with the images of the task that ``also`` names."""
    if isinstance(task, TiledTask):
        raise InvalidOptionError(
            f"{task.name} is trained on tiles, which whole images cannot take turns with; leave "
            f"out also={config.also}."
        )
    name, _, root = config.also.partition("=")
    other = open_task(name, root or None, seed=config.seed).images()
    return Interleaved(items, other)


def with_image_size(preprocessing: Preprocessing, size: int) -> Preprocessing:
    """The same preprocessing for images of another side; 0 changes nothing."""
    if not size:
        return preprocessing
    return replace(preprocessing, input_size=(preprocessing.input_size[0], size, size))
