"""What is trained and measured on each dataset, and with which preprocessing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from pylon_zoo.data.bccd import BCCD
from pylon_zoo.data.cached import Cached
from pylon_zoo.data.chexlocalize import CheXlocalize
from pylon_zoo.data.coco import COCO
from pylon_zoo.data.csv_table import CSVTable
from pylon_zoo.data.files import FileDataset
from pylon_zoo.data.image_folder import ImageFolder
from pylon_zoo.data.nih14 import NIH14
from pylon_zoo.data.own import SPLITS
from pylon_zoo.data.phantom import Phantom
from pylon_zoo.data.sample import LocalizationDataset, Sample
from pylon_zoo.data.shards import CachedShards
from pylon_zoo.data.tiles import Tiles
from pylon_zoo.data.vindr_cxr import VinDrCXR
from pylon_zoo.data.voc2012 import VOC2012
from pylon_zoo.errors import DatasetError, InvalidOptionError, PylonZooError, unknown_name
from pylon_zoo.spec import Preprocessing

__all__ = [
    "TASKS",
    "BCCDTask",
    "COCOTask",
    "CSVTask",
    "CheXlocalizeTask",
    "FilesTask",
    "ImageFolderTask",
    "NIH14Task",
    "PhantomTask",
    "Task",
    "TiledTask",
    "VOC2012Task",
    "VinDrCXR10Task",
    "VinDrCXR50Task",
    "VinDrCXRTask",
    "files_task",
    "open_task",
]

#: Of ImageNet, the usual ones for color images.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Task(ABC):
    """A dataset's views: to train on, to select a model by, to measure on.

    Attributes:
        name: what ``--data`` names.
        class_names: K names.
        preprocessing: that models for this task are made with.
        partition: of the splits those that share no image and no group, and hold all images;
            a dataset may lack some of them.
        selection_split: the one that :meth:`selection` takes its items from.
        training_resize: ``"native"`` where training items are tiles, to be left as they are; None
            for the preprocessing's own way.
        url: where the data is had.
        license: of the data.
    """

    name: ClassVar[str]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    splits: tuple[str, ...]
    partition: ClassVar[tuple[str, ...]] = ("train", "val", "held_out", "test")
    selection_split: ClassVar[str] = "val"
    training_resize: ClassVar[str | None] = None
    url: ClassVar[str]
    license: ClassVar[str]

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        self.root = root
        self.seed = seed

    @abstractmethod
    def training(self) -> LocalizationDataset:
        """Items to train on; any index is one, ``len`` is what one epoch takes."""

    def images(self) -> LocalizationDataset:
        """Whole images to train on: the training items, unless those are cut from them."""
        return self.training()

    @abstractmethod
    def selection(self) -> LocalizationDataset:
        """Items whose loss selects the best epoch; neither trained nor reported on."""

    @abstractmethod
    def classification(self, split: str) -> LocalizationDataset:
        """Items of a split on which AUROC is measured."""

    @abstractmethod
    def localization(self, split: str) -> LocalizationDataset:
        """Whole images of a split on which localization is measured."""


class TiledTask(Task):
    """Trained on random tiles of images that would each hold nearly every class.

    Attributes:
        tile: side of the tiles in pixels; ``TILE`` unless set to another.
        tiles_per_epoch: how many an epoch takes; ``TILES_PER_EPOCH`` unless set to another.
    """

    training_resize = "native"
    TILE: ClassVar[int]
    TILES_PER_EPOCH: ClassVar[int]

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        super().__init__(root, seed)
        self.tile, self.tiles_per_epoch = self.TILE, self.TILES_PER_EPOCH

    @abstractmethod
    def images(self) -> LocalizationDataset:
        """Whole images, to be cut."""

    def training(self) -> LocalizationDataset:
        """Random tiles of the images; every seed cuts its own."""
        return Tiles(
            self.images(),
            self.tile,
            positions="random",
            length=self.tiles_per_epoch,
            seed=self.seed,
        )


class PhantomTask(TiledTask):
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

    def images(self) -> LocalizationDataset:
        """3,000 images of the train split; every seed draws its own."""
        return Cached(Phantom("train", length=3000, seed=self.seed))

    def selection(self) -> LocalizationDataset:
        """The 500 images of the val split."""
        return Cached(self.classification("val"))

    def classification(self, split: str) -> LocalizationDataset:
        """500 images, the same for every seed of training."""
        return Phantom(split, length=500)

    def localization(self, split: str) -> LocalizationDataset:
        """The images that AUROC is measured on."""
        return self.classification(split)


class BCCDTask(TiledTask):
    """Blood cells: trained and classified on tiles of 256 px, localized on whole images."""

    name = "bccd"
    class_names = BCCD.class_names
    splits = ("val", "test", "train", "fit", "select")
    partition = ("fit", "select", "val", "test")
    selection_split = "select"
    preprocessing = Preprocessing(
        input_size=(3, 256, 256),
        # Of the fit split's pixels.
        mean=(0.738, 0.696, 0.715),
        std=(0.060, 0.102, 0.075),
        resize="native",
    )
    url = BCCD.download_page
    license = "MIT"
    TILE = 256
    TILES_PER_EPOCH = 2048

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        super().__init__(root, seed)
        if root is None:
            raise DatasetError(
                f"bccd needs files: get the dataset from {BCCD.download_page} and give its "
                f"folder as root (--root DIR)."
            )
        self.folder = root

    def images(self) -> LocalizationDataset:
        """The fit split (5/6 of the official train list)."""
        return Cached(BCCD(self.folder, "fit"))

    def selection(self) -> LocalizationDataset:
        """Grid tiles of the select split (the other 1/6)."""
        return Cached(self.classification("select"))

    def classification(self, split: str) -> LocalizationDataset:
        """A fixed grid of 3 x 2 tiles an image."""
        return Tiles(Cached(BCCD(self.folder, split)))

    def localization(self, split: str) -> LocalizationDataset:
        """Whole images."""
        return BCCD(self.folder, split)


class FilesTask(Task):
    """A dataset of whole images in files: classified and localized on the same images.

    Attributes:
        cache: folder that ``pylon-zoo data cache`` wrote, to read images for training from.
        training_split: that is trained on.
    """

    cache: str | None = None
    training_split: ClassVar[str] = "train"

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        super().__init__(root, seed)
        if root is None:
            raise DatasetError(
                f"{self.name} needs files: get the dataset from {self.url} and give its folder "
                f"as root (--root DIR)."
            )
        self.folder = root

    @abstractmethod
    def dataset(self, split: str) -> FileDataset:
        """All images of a split, whether their files are there or not."""

    def _whole(self, split: str) -> LocalizationDataset:
        images = self.dataset(split)
        if self.cache is None:
            return images.require_files()
        return CachedShards(Path(self.cache) / split, images)

    def training(self) -> LocalizationDataset:
        """The training split, from the cache where there is one."""
        return self._whole(self.training_split)

    def selection(self) -> LocalizationDataset:
        """The selection split, from the cache where there is one."""
        return self._whole(self.selection_split)

    def classification(self, split: str) -> LocalizationDataset:
        """Whole images."""
        return self.dataset(split).require_files()

    def localization(self, split: str) -> LocalizationDataset:
        """Those of the whole images that have boxes or masks."""
        return self.dataset(split).with_boxes()


class NIH14Task(FilesTask):
    """NIH Chest X-ray 14 at 256 px, as in the PYLON paper."""

    name = "nih14"
    class_names = NIH14.CLASS_NAMES
    splits = NIH14.SPLITS
    preprocessing = Preprocessing.default(1)
    url = NIH14.download_page
    license = NIH14.license

    def dataset(self, split: str) -> FileDataset:
        """A split of the official release."""
        return NIH14(self.folder, split)


class VinDrCXRTask(FilesTask):
    """VinDr-CXR at 256 px, trained on 70 % of the official training images."""

    name = "vindr_cxr"
    class_names = VinDrCXR.CLASS_NAMES
    splits: tuple[str, ...] = VinDrCXR.SPLITS
    preprocessing = Preprocessing.default(1)
    url = VinDrCXR.download_page
    license = VinDrCXR.license
    train_percent: ClassVar[int] = 70

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        super().__init__(root, seed)
        if not VinDrCXR.is_physionet(self.folder):
            self.splits = tuple(split for split in self.splits if split != "test")

    def dataset(self, split: str) -> FileDataset:
        """A split of either release."""
        return VinDrCXR(self.folder, split, train_percent=self.train_percent)


class VinDrCXR50Task(VinDrCXRTask):
    """VinDr-CXR, trained on half of the official training images."""

    name = "vindr_cxr_50"
    train_percent = 50


class VinDrCXR10Task(VinDrCXRTask):
    """VinDr-CXR, trained on a tenth of the official training images."""

    name = "vindr_cxr_10"
    train_percent = 10


class VOC2012Task(FilesTask):
    """Pascal VOC 2012 at 256 px, in color; trained on 9/10 of the official train list."""

    name = "voc2012"
    class_names = VOC2012.CLASS_NAMES
    splits = VOC2012.SPLITS
    partition = ("fit", "select", "val")
    preprocessing = Preprocessing(input_size=(3, 256, 256), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    training_split, selection_split = "fit", "select"
    url = VOC2012.download_page
    license = VOC2012.license

    def dataset(self, split: str) -> FileDataset:
        """A split of the official release."""
        return VOC2012(self.folder, split)


class CheXlocalizeTask(FilesTask):
    """CheXlocalize at 256 px; trained on CheXpert's training images, where they are there."""

    name = "chexlocalize"
    class_names = CheXlocalize.CLASS_NAMES
    splits: tuple[str, ...] = CheXlocalize.SPLITS
    preprocessing = Preprocessing.default(1)
    url = CheXlocalize.download_page
    license = CheXlocalize.license

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        super().__init__(root, seed)
        if not CheXlocalize.has_training_images(self.folder):
            self.splits = tuple(split for split in self.splits if split != "train")

    def dataset(self, split: str) -> FileDataset:
        """A split of CheXpert."""
        return CheXlocalize(self.folder, split)


class OwnTask(FilesTask):
    """Data of one's own; classes and channels are what the files say."""

    kind: ClassVar[Callable[..., FileDataset]]
    splits = SPLITS
    url = "your own files"
    license = "your own"

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        super().__init__(root, seed)
        images = self.dataset("all")
        self.class_names = images.class_names
        self.preprocessing = Preprocessing.default(1)
        for sample in _readable(images):
            if sample.image.shape[0] == 3:
                self.preprocessing = Preprocessing(
                    input_size=(3, 256, 256), mean=IMAGENET_MEAN, std=IMAGENET_STD
                )
            break

    def dataset(self, split: str) -> FileDataset:
        """A split that the files name, or else one by the hash of the group."""
        return type(self).kind(self.folder, split)


def _readable(images: FileDataset) -> Iterator[Sample]:
    for index in range(len(images)):
        with suppress(PylonZooError):
            yield images[index]


class CSVTask(OwnTask):
    """Images listed in a CSV file."""

    name = "csv"
    kind = CSVTable


class COCOTask(OwnTask):
    """Images with annotations in COCO format."""

    name = "coco"
    kind = COCO


class ImageFolderTask(OwnTask):
    """A folder of images for each class."""

    name = "image_folder"
    kind = ImageFolder


TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        PhantomTask,
        BCCDTask,
        NIH14Task,
        VinDrCXRTask,
        VinDrCXR50Task,
        VinDrCXR10Task,
        VOC2012Task,
        CheXlocalizeTask,
        CSVTask,
        COCOTask,
        ImageFolderTask,
    )
}


def open_task(
    name: str,
    root: str | None = None,
    *,
    seed: int = 0,
    cache: str | None = None,
    tile: int = 0,
    tiles_per_epoch: int = 0,
) -> Task:
    """The task of that name.

    Args:
        name: a key of :data:`TASKS`.
        root: the dataset's folder, where it has files.
        seed: of what is drawn.
        cache: folder that ``pylon-zoo data cache`` wrote; training and selection read it.
        tile: side of the tiles to train on, in pixels; 0 for the task's own.
        tiles_per_epoch: how many tiles an epoch takes; 0 for the task's own number.

    Raises:
        UnknownNameError: no such task; suggests the nearest.
        DatasetError: the dataset needs a folder.
        InvalidOptionError: the dataset takes no cache, or is not trained on tiles.
    """
    if name not in TASKS:
        raise unknown_name("dataset", name, TASKS)
    task = TASKS[name](root, seed)
    if cache is not None:
        files_task(task).cache = cache
    if tile or tiles_per_epoch:
        if not isinstance(task, TiledTask):
            tiled = ", ".join(name for name, kind in TASKS.items() if issubclass(kind, TiledTask))
            raise InvalidOptionError(
                f"{name} is trained on whole images, not on tiles, so that it takes no tile and no "
                f"tiles_per_epoch; datasets with tiles are {tiled}. image_size sets the side that "
                f"images are resized to."
            )
        task.tile = tile or task.tile
        task.tiles_per_epoch = tiles_per_epoch or task.tiles_per_epoch
    return task


def files_task(task: Task) -> FilesTask:
    """The task itself, if it is one of whole images in files.

    Raises:
        InvalidOptionError: it is not, so that there is nothing to cache.
    """
    if not isinstance(task, FilesTask):
        cached = ", ".join(name for name, kind in TASKS.items() if issubclass(kind, FilesTask))
        raise InvalidOptionError(
            f"{task.name} keeps its images in memory and takes no cache; datasets that do are "
            f"{cached}."
        )
    return task
