"""Images, labels, boxes and masks; never sees a model."""

from pylon_zoo.data.bccd import BCCD
from pylon_zoo.data.cached import Cached
from pylon_zoo.data.chexlocalize import CheXlocalize
from pylon_zoo.data.coco import COCO
from pylon_zoo.data.csv_table import CSVTable
from pylon_zoo.data.files import FileDataset
from pylon_zoo.data.image_folder import ImageFolder
from pylon_zoo.data.interleaved import Interleaved
from pylon_zoo.data.nih14 import NIH14
from pylon_zoo.data.phantom import Phantom
from pylon_zoo.data.readers import count_frames, find_images, read_image
from pylon_zoo.data.sample import LocalizationDataset, Sample
from pylon_zoo.data.shards import CachedShards
from pylon_zoo.data.tasks import TASKS, Task, open_task
from pylon_zoo.data.tiles import Tiles
from pylon_zoo.data.vindr_cxr import VinDrCXR
from pylon_zoo.data.voc2012 import VOC2012

__all__ = [
    "BCCD",
    "COCO",
    "NIH14",
    "TASKS",
    "VOC2012",
    "CSVTable",
    "Cached",
    "CachedShards",
    "CheXlocalize",
    "FileDataset",
    "ImageFolder",
    "Interleaved",
    "LocalizationDataset",
    "Phantom",
    "Sample",
    "Task",
    "Tiles",
    "VinDrCXR",
    "count_frames",
    "find_images",
    "open_task",
    "read_image",
]
