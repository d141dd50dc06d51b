import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import pylon_zoo
from pylon_zoo.data import LocalizationDataset, Phantom, tasks
from pylon_zoo.errors import InvalidInputError, UnknownNameError
from pylon_zoo.heatmaps import find_peaks
from pylon_zoo.training.evaluation import evaluate, format_estimate, summary_rows


class TinyTask(tasks.PhantomTask):
    def classification(self, split: str) -> LocalizationDataset:
        return Phantom(split, size=128, length=24)


@pytest.fixture(scope="module")
def model() -> pylon_zoo.LocalizationModel:
    torch.manual_seed(0)
    return pylon_zoo.create_model("cam_regnetx_002", class_names=Phantom.class_names).eval()


def test_the_report_agrees_with_a_plain_computation(model: pylon_zoo.LocalizationModel) -> None:
    task = TinyTask()
    report = evaluate(model, task, "val", batch_size=5)
    transform = pylon_zoo.create_transform(model)
    samples = [transform(task.classification("val")[i]) for i in range(24)]
    images = torch.stack([s.image for s in samples])
    with torch.no_grad():
        scores = model(images).logits.numpy()
    labels = torch.stack([s.labels for s in samples]).numpy()
    for k, name in enumerate(task.class_names):
        expected = roc_auc_score(labels[:, k], scores[:, k])
        assert report["classification"]["per_class"][name]["value"] == pytest.approx(expected)
    for alignment, table in report["localization"].items():
        peaks = find_peaks(pylon_zoo.get_cam(model, images, alignment=alignment)).xy
        hits = []
        for sample, xy in zip(samples, peaks, strict=True):
            for k in set(sample.box_classes.tolist()):
                x, y = xy[k].tolist()
                x0, y0, x1, y1 = sample.boxes[sample.box_classes == k].T
                hits.append(bool(((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)).any()))
        assert table["micro"]["value"] == pytest.approx(np.mean(hits))
        assert table["micro"]["support"] == len(hits) == int(labels.sum())
    assert set(report["localization"]) == {"corners_false", "receptive_field"}
    json.dumps(report, allow_nan=False)


def test_rows_of_the_table(model: pylon_zoo.LocalizationModel) -> None:
    rows = summary_rows(evaluate(model, TinyTask(), "val"))
    assert [name for metric, name, _ in rows if metric == "AUROC"][:2] == ["macro", "weighted"]
    assert len(rows) == 3 * (2 + 6)
    estimate = {"value": 0.94871, "low": 0.9, "high": 1.0}
    assert format_estimate(estimate) == "0.949 [0.90, 1.00]"
    assert format_estimate({"value": None}) == "n/a"


def test_other_classes_and_splits_are_refused(model: pylon_zoo.LocalizationModel) -> None:
    with pytest.raises(UnknownNameError, match="'test'"):
        evaluate(model, TinyTask(), "tset")
    other = pylon_zoo.create_model("cam_regnetx_002", class_names=("a", "b"))
    with pytest.raises(InvalidInputError, match=r"\('a', 'b'\) are not those of phantom"):
        evaluate(other, TinyTask(), "val")
