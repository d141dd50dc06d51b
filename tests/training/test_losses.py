import pytest
import torch
from torch import Tensor

from pylon_zoo.data import Sample
from pylon_zoo.training.losses import balanced_weights, masked_bce, smooth


class Labels:
    class_names = ("a", "b", "c")
    labels = torch.tensor([[1, 0, 1], [0, 0, 1], [0, float("nan"), 1], [0, 1, 1]])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return Sample(image=torch.zeros(1, 2, 2), labels=self.labels[index])


def test_balanced_weights_are_negatives_over_positives() -> None:
    # Of b one is positive and two are negative; c has no negatives to balance.
    assert balanced_weights(Labels()).tolist() == [3, 2, 1]


def test_positives_weigh_what_is_said() -> None:
    logits, labels = torch.tensor([[0.3, -1.0]]), torch.tensor([[1.0, 0.0]])
    plain = torch.nn.functional.softplus(torch.tensor([-0.3, -1.0]))
    weighted = masked_bce(logits, labels, torch.tensor([5.0, 7.0]))
    assert float(weighted) == pytest.approx(float((5 * plain[0] + plain[1]) / 2))


def test_smoothing_keeps_unknown_labels_unknown() -> None:
    labels: Tensor = smooth(torch.tensor([1.0, 0.0, float("nan")]), 0.2)
    assert labels[:2].tolist() == pytest.approx([0.9, 0.1])
    assert labels[2].isnan()
    assert smooth(labels, 0) is labels
