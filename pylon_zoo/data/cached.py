"""Samples kept in memory."""

from __future__ import annotations

from collections.abc import Sequence

from pylon_zoo.data.sample import LocalizationDataset, Sample

__all__ = ["Cached"]


class Cached:
    """Keeps each sample of a dataset once it was made; beyond the end it starts over."""

    def __init__(self, dataset: LocalizationDataset) -> None:
        self.dataset = dataset
        self._samples: dict[int, Sample] = {}

    @property
    def class_names(self) -> Sequence[str]:
        """The dataset's."""
        return self.dataset.class_names

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        index %= len(self.dataset)
        if index not in self._samples:
            self._samples[index] = self.dataset[index]
        return self._samples[index]
