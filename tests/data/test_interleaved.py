import pytest
import torch

from pylon_zoo.data import Interleaved, Phantom, Sample
from pylon_zoo.errors import InvalidOptionError


class Radiographs:
    """Three images, whose pixels are their index."""

    class_names = ("Hernia", "Effusion", "Mass")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        image = torch.full((1, 8, 8), index % 3, dtype=torch.uint8)
        return Sample(image, torch.tensor([1.0, 0.0, 0.0]), source=f"radiograph {index}")


class Drawings:
    """Two images with every finding of another list of classes."""

    class_names = ("mass", "nodule", "effusion")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            image=torch.full((1, 8, 8), 100 + index, dtype=torch.uint8),
            labels=torch.tensor([1.0, 1.0, 0.0]),
            boxes=torch.tensor([[0.0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]]),
            box_classes=torch.tensor([1, 0, 2]),
            points=torch.tensor([[1.0, 1], [2, 2]]),
            point_classes=torch.tensor([0, 1]),
            masks=torch.arange(2).view(2, 1, 1).expand(2, 8, 8) == 1,
            mask_classes=torch.tensor([1, 2]),
            source=f"drawing {index}",
        )


def test_items_take_turns() -> None:
    items = Interleaved(Radiographs(), Drawings())
    assert len(items) == 6
    assert items.class_names == Radiographs.class_names
    found = [items[index].source for index in range(8)]
    assert found == [
        "radiograph 0",
        "drawing 0",
        "radiograph 1",
        "drawing 1",
        "radiograph 2",
        "drawing 0",
        # Beyond the end it goes on where each dataset is.
        "radiograph 3",
        "drawing 1",
    ]


def test_labels_and_places_are_in_the_classes_of_the_first() -> None:
    items = Interleaved(Radiographs(), Drawings())
    assert torch.equal(items[0].labels, torch.tensor([1.0, 0.0, 0.0]))

    drawing = items[1]
    assert drawing.labels[0].isnan()
    assert drawing.labels[1:].tolist() == [0.0, 1.0]
    assert drawing.box_classes.tolist() == [2, 1]
    assert drawing.boxes.tolist() == [[1, 1, 2, 2], [2, 2, 3, 3]]
    assert drawing.point_classes.tolist() == [2]
    assert drawing.points.tolist() == [[1, 1]]
    assert drawing.mask_classes.tolist() == [1]
    assert drawing.masks.all()


def test_findings_of_phantoms_are_findings_of_radiographs() -> None:
    items = Interleaved(Radiographs(), Phantom("train", length=20))
    for index in range(1, 40, 2):
        phantom, item = Phantom("train")[index // 2], items[index]
        assert torch.equal(item.image, phantom.image)
        assert item.labels[1] == phantom.labels[Phantom.class_names.index("effusion")]
        assert item.labels[2] == phantom.labels[Phantom.class_names.index("mass")]


def test_nothing_in_common_is_refused() -> None:
    drawings = Drawings()
    drawings.class_names = ("RBC",)  # type: ignore[assignment]
    with pytest.raises(InvalidOptionError, match="None of the classes RBC is one of Hernia"):
        Interleaved(Radiographs(), drawings)
