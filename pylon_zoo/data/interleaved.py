"""Two datasets as one, in the classes of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pylon_zoo.data.sample import LocalizationDataset, Sample
from pylon_zoo.errors import InvalidOptionError
from pylon_zoo.spec import match_classes

__all__ = ["Interleaved"]


class Interleaved:
    """Items of two datasets in turn, labelled in the classes of the first.

    Even indices are the first one's; the second is gone through as often as that takes. Its classes
    are the first one's where the names agree, in upper or lower case. What it says of others is
    dropped, and classes that it does not know are labelled NaN, which no loss looks at: an image
    that nobody examined for a finding is no example of its absence.
    """

    def __init__(self, first: LocalizationDataset, second: LocalizationDataset) -> None:
        """Match the classes.

        Raises:
            InvalidOptionError: they have none in common.
        """
        self.first, self.second = first, second
        # Of each class of the second its place among the first's, or -1.
        self._places = torch.tensor(match_classes(second.class_names, first.class_names))
        if (self._places < 0).all():
            raise InvalidOptionError(
                f"None of the classes {', '.join(second.class_names)} is one of "
                f"{', '.join(first.class_names)}, so that the images of the former would teach "
                f"nothing. Names must agree but for upper and lower case."
            )

    @property
    def class_names(self) -> Sequence[str]:
        """The first dataset's."""
        return self.first.class_names

    def __len__(self) -> int:
        return 2 * len(self.first)

    def __getitem__(self, index: int) -> Sample:
        if index % 2 == 0:
            return self.first[index // 2]
        sample = self.second[index // 2 % len(self.second)]
        labels = torch.full((len(self.class_names),), float("nan"))
        labels[self._places[self._places >= 0]] = sample.labels[self._places >= 0]
        boxes, points, masks = (
            self._places[classes]
            for classes in (sample.box_classes, sample.point_classes, sample.mask_classes)
        )
        return replace(
            sample,
            labels=labels,
            boxes=sample.boxes[boxes >= 0],
            box_classes=boxes[boxes >= 0],
            points=sample.points[points >= 0],
            point_classes=points[points >= 0],
            masks=sample.masks[masks >= 0],
            mask_classes=masks[masks >= 0],
        )
