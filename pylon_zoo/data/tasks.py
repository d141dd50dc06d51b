"""What is trained and measured on each dataset, and with which preprocessing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

from pylon_zoo.data.bccd import BCCD
from pylon_zoo.data.cached import Cached
from pylon_zoo.data.phantom import Phantom
from pylon_zoo.data.sample import LocalizationDataset
from pylon_zoo.data.tiles import Tiles
from pylon_zoo.errors import DatasetError, unknown_name
from pylon_zoo.spec import Preprocessing

__all__ = ["TASKS", "BCCDTask", "PhantomTask", "Task", "open_task"]


class Task(ABC):
    """A dataset's views: to train on, to select a model by, to measure on.

    Attributes:
        name: what ``--data`` names.
        class_names: K names.
        preprocessing: that models for this task are made with.
        url: where the data is had.
        license: of the data.
    """

    name: ClassVar[str]
    class_names: ClassVar[tuple[str, ...]]
    preprocessing: ClassVar[Preprocessing]
    splits: ClassVar[tuple[str, ...]]
    url: ClassVar[str]
    license: ClassVar[str]

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        self.root = root
        self.seed = seed

    @property
    def training_preprocessing(self) -> Preprocessing:
        """How the training items become a model's input; tiles stay at their own size."""
        return self.preprocessing

    @abstractmethod
    def training(self) -> LocalizationDataset:
        """Items to train on; any index is one, ``len`` is what one epoch takes."""

    @abstractmethod
    def selection(self) -> LocalizationDataset:
        """Items whose loss selects the best epoch; neither trained nor reported on."""

    @abstractmethod
    def classification(self, split: str) -> LocalizationDataset:
        """Items of a split on which AUROC is measured."""

    @abstractmethod
    def localization(self, split: str) -> LocalizationDataset:
        """Whole images of a split on which localization is measured."""


class PhantomTask(Task):
    """Radiograph phantoms: tiles of 3,000 drawn images to train on, 500 whole ones to measure on.

    Every phantom shows the same anatomy in nearly the same place. Trained on whole images, a model
    may tell an effusion by a cell that lies anywhere below it; a tile shows a finding without its
    surroundings and surroundings without it, so that only the finding itself will do.
    """

    name = "phantom"
    class_names = Phantom.class_names
    splits = ("val", "test")
    preprocessing = Preprocessing.default(1)
    url = "pylon_zoo.data.Phantom"
    license = Phantom.license
    TILE = 160
    TILES_PER_EPOCH = 4096

    @property
    def training_preprocessing(self) -> Preprocessing:
        """Tiles are not resized."""
        return replace(self.preprocessing, resize="native")

    def training(self) -> LocalizationDataset:
        """Random tiles of 160 px of 3,000 images of the train split; every seed draws its own."""
        images = Cached(Phantom("train", length=3000, seed=self.seed))
        return Tiles(
            images, self.TILE, positions="random", length=self.TILES_PER_EPOCH, seed=self.seed
        )

    def selection(self) -> LocalizationDataset:
        """The 500 images of the val split."""
        return Cached(self.classification("val"))

    def classification(self, split: str) -> LocalizationDataset:
        """500 images, the same for every seed of training."""
        return Phantom(split, length=500)

    def localization(self, split: str) -> LocalizationDataset:
        """The images that AUROC is measured on."""
        return self.classification(split)


class BCCDTask(Task):
    """Blood cells: trained and classified on tiles of 256 px, localized on whole images."""

    name = "bccd"
    class_names = BCCD.class_names
    splits = ("val", "test", "train", "select")
    preprocessing = Preprocessing(
        input_size=(3, 256, 256),
        # Of the fit split's pixels.
        mean=(0.738, 0.696, 0.715),
        std=(0.060, 0.102, 0.075),
        resize="native",
    )
    url = BCCD.download_page
    license = "MIT"
    TILES_PER_EPOCH = 2048

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        super().__init__(root, seed)
        if root is None:
            raise DatasetError(
                f"bccd needs files: get the dataset from {BCCD.download_page} and give its "
                f"folder as root (--root DIR)."
            )
        self.folder = root

    def training(self) -> LocalizationDataset:
        """Random tiles of the fit split (5/6 of the official train list)."""
        images = Cached(BCCD(self.folder, "fit"))
        return Tiles(images, positions="random", length=self.TILES_PER_EPOCH, seed=self.seed)

    def selection(self) -> LocalizationDataset:
        """Grid tiles of the select split (the other 1/6)."""
        return Cached(self.classification("select"))

    def classification(self, split: str) -> LocalizationDataset:
        """A fixed grid of 3 x 2 tiles an image."""
        return Tiles(Cached(BCCD(self.folder, split)))

    def localization(self, split: str) -> LocalizationDataset:
        """Whole images."""
        return BCCD(self.folder, split)


TASKS: dict[str, type[Task]] = {task.name: task for task in (PhantomTask, BCCDTask)}


def open_task(name: str, root: str | None = None, *, seed: int = 0) -> Task:
    """The task of that name; ``root`` is the dataset's folder, where it has files.

    Raises:
        UnknownNameError: no such task; suggests the nearest.
        DatasetError: the dataset needs a folder.
    """
    if name not in TASKS:
        raise unknown_name("dataset", name, TASKS)
    return TASKS[name](root, seed)
