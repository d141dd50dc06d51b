import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_evaluation
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny_evaluation import MarkedTask

import pylon_zoo
from pylon_zoo.data import Phantom, tasks
from pylon_zoo.errors import InvalidInputError, MissingExtraError, UnknownNameError
from pylon_zoo.heatmaps import find_peaks
from pylon_zoo.metrics import (
    BoxAccuracy,
    MapOverlap,
    MaskOverlap,
    PointLocalization,
    calibration_error,
)
from pylon_zoo.spec import Preprocessing
from pylon_zoo.training import evaluation_plots
from pylon_zoo.training.evaluation import (
    evaluate,
    format_estimate,
    localization_tables,
    markdown_report,
    summary_rows,
)

Report = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> pylon_zoo.LocalizationModel:
    torch.manual_seed(0)
    model = pylon_zoo.create_model("cam_regnetx_002", class_names=Phantom.class_names).eval()
    model.spec = replace(model.spec, preprocessing=Preprocessing.default(1, size=128))
    with torch.no_grad():  # so that its maps are not all alike
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.mul_(30)
    return model


@pytest.fixture(scope="module")
def report(model: pylon_zoo.LocalizationModel) -> Report:
    return evaluate(model, MarkedTask(), "val", threshold_split="test", batch_size=5)


def test_classification_agrees_with_a_plain_computation(
    model: pylon_zoo.LocalizationModel, report: Report
) -> None:
    items = MarkedTask().classification("val")
    transform = pylon_zoo.create_transform(model)
    samples = [transform(items[i]) for i in range(len(items))]
    with torch.no_grad():
        logits = model(torch.stack([s.image for s in samples])).logits.double()
    labels, scores = torch.stack([s.labels for s in samples]).numpy(), logits.numpy()
    assert np.isnan(labels).sum() > 5
    measured = 0
    for k, name in enumerate(items.class_names):
        known = ~np.isnan(labels[:, k])
        truth, score = labels[known, k], scores[known, k]
        error = report["calibration"]["per_class"][name]
        found = calibration_error(truth, logits[known, k].sigmoid().numpy())
        assert error["value"] == pytest.approx(float(found), abs=1e-6)
        brier = report["brier"]["per_class"][name]["value"]
        assert brier == pytest.approx(((logits[known, k].sigmoid().numpy() - truth) ** 2).mean())
        assert (error["support"], error["negatives"]) == (truth.sum(), (truth == 0).sum())
        if 0 < truth.sum() < len(truth):
            measured += 1
            auroc = report["classification"]["per_class"][name]["value"]
            assert auroc == pytest.approx(roc_auc_score(truth, score))
            precision = report["average_precision"]["per_class"][name]["value"]
            assert precision == pytest.approx(average_precision_score(truth, score))
    assert measured >= 4
    json.dumps(report, allow_nan=False)


def test_localization_agrees_with_a_plain_computation(
    model: pylon_zoo.LocalizationModel, report: Report
) -> None:
    names = Phantom.class_names
    transform = pylon_zoo.create_transform(model)
    for alignment in ("corners_false", "receptive_field"):
        meters: dict[str, Any] = {}
        for split in ("val", "test"):
            images = MarkedTask().localization(split)
            samples = [transform(images[i]) for i in range(len(images))]
            cams = pylon_zoo.get_cam(
                model, torch.stack([s.image for s in samples]), alignment=alignment
            )
            meters[split] = overlap, boxes, ious = (
                MapOverlap(names),
                BoxAccuracy(names),
                MaskOverlap(names),
            )
            hits, pixels = [], {k: ([], []) for k in range(len(names))}  # type: ignore[var-annotated]
            for sample, cam, peaks in zip(samples, cams, find_peaks(cams).xy, strict=True):
                likely = cam.double().sigmoid()
                masks = torch.zeros(len(names), 128, 128, dtype=torch.bool)
                masks[sample.mask_classes] = sample.masks
                overlap.update(likely, sample.boxes, sample.box_classes)
                boxes.update(likely, sample.boxes, sample.box_classes)
                if masks.any():
                    ious.update(likely, masks)
                for k in range(len(names)):
                    of_class = sample.boxes[sample.box_classes == k]
                    x, y = peaks[k].tolist()
                    if len(of_class):
                        x0, y0, x1, y1 = of_class.T
                        inside = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
                        hits.append(bool(inside.any() or masks[k, y, x]))
                    if masks.any() and (masks[k].any() or sample.labels[k] == 0):
                        pixels[k][0].append(masks[k].flatten())
                        pixels[k][1].append((likely[k].flatten() * 256).floor())
            if split == "val":
                table = report["localization"][alignment]
                assert table["micro"]["value"] == pytest.approx(np.mean(hits))
                assert table["micro"]["support"] == len(hits)
                for k, name in enumerate(names):
                    found = report["pixel_average_precision"][alignment]["per_class"][name]
                    truth = torch.cat(pixels[k][0]) if pixels[k][0] else torch.zeros(0)
                    if truth.any():
                        expected = average_precision_score(truth, torch.cat(pixels[k][1]))
                        assert found["value"] == pytest.approx(expected)
                        assert found["chance"] == pytest.approx(float(truth.double().mean()))
                    else:
                        assert found["value"] is None
                assert report["pixel_average_precision"][alignment]["macro"]["value"] > 0
        overlap, boxes, ious = meters["val"]
        found = report["overlap"][alignment]["iou"]["0.1"]["micro"]
        assert found["value"] == overlap.compute(replicates=2)["iou"]["0.1"]["micro"]["value"]
        taus = meters["test"][1].best_taus()
        assert report["max_box_acc_v2"][alignment]["taus"] == taus
        for key, expected in (
            ("max_box_acc_v2", boxes.compute(taus, replicates=2)),
            ("mask_iou", ious.compute(replicates=2)),
        ):
            value = report[key][alignment]["micro"]["value"]
            assert value == pytest.approx(expected["micro"]["value"])
            assert value > 0
    assert report["thresholds"] == {"chosen_on": "test", "chosen_on_measured_split": False}


def test_thresholds_chosen_on_the_measured_images_are_marked(
    model: pylon_zoo.LocalizationModel, report: Report
) -> None:
    for chosen in (None, "val"):
        own = evaluate(model, MarkedTask(), "val", threshold_split=chosen)
        assert own["thresholds"] == {"chosen_on": "val", "chosen_on_measured_split": True}
        assert "val split, the one measured here: what depends on them" in markdown_report(own)
        for alignment, table in own["max_box_acc_v2"].items():
            value = table["micro"]["value"]
            assert value >= report["max_box_acc_v2"][alignment]["micro"]["value"]
    assert "were chosen on the test split." in markdown_report(report)


def test_rows_of_the_tables(report: Report) -> None:
    rows = summary_rows(report)
    assert [name for metric, name, _ in rows if metric == "AUROC"][:2] == ["macro", "weighted"]
    assert len(rows) == 3 * (2 + 6)
    lines = markdown_report(report).splitlines()
    of_classification = 8 * 6 + 4 * 3 + 4 * 2  # micro, macro and, but for rates, weighted
    of_localization = (1 + 9 + 1 + 1) * (2 + 6) + (1 + 6)
    assert len(localization_tables(report)) == 13
    tables = 6 + 2
    headers = 2 * 4
    assert (
        len([line for line in lines if line.startswith("|")])
        == of_classification + of_localization + tables + headers
    )
    micro = report["classification"]["micro"]
    counts = f"{micro['support']} / {micro['negatives']}"
    assert f"| AUROC | micro | {format_estimate(micro)} | 0.500 | {counts} |" in lines
    mean = [report["localization"][a]["macro"] for a in report["localization"]]
    values = " | ".join(map(format_estimate, mean))
    chance, support = mean[0]["chance"], mean[0]["support"]
    assert f"| point localization | macro | {values} | {chance:.3f} | {support} |" in lines
    estimate = {"value": 0.94871, "low": 0.9, "high": 1.0}
    assert format_estimate(estimate) == "0.949 [0.90, 1.00]"
    assert format_estimate({"value": None}) == "n/a"


def without_places(report: Report) -> Report:
    """The report as it is for data without boxes, points and masks."""
    nothing = PointLocalization(Phantom.class_names).compute(replicates=2)
    empty = dict.fromkeys(report["localization"], nothing)
    kinds = MapOverlap(Phantom.class_names).compute(replicates=2)
    keys = ("localization", "max_box_acc_v2", "mask_iou", "pixel_average_precision")
    return report | dict.fromkeys(keys, empty) | {"overlap": dict.fromkeys(empty, kinds)}


def test_plots_are_drawn_of_what_there_is(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation_plots.plot_roc(report, tmp_path / "roc.png")
    evaluation_plots.plot_localization(report, tmp_path / "localization.png")
    for name in ("roc", "localization"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            colors = {color for _, color in picture.convert("RGB").getcolors(1 << 24)}
            assert picture.width > 800
            assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["localization.png", "roc.png"]
    both = evaluation_plots.plot_report(report)
    with Image.open(tmp_path / "roc.png") as roc:
        assert both.crop((0, 0, *roc.size)).tobytes() == roc.convert("RGB").tobytes()
        assert both.height > roc.height + 200
    (tmp_path / "localization.png").unlink()
    nowhere = without_places(report)
    assert "Localization" not in markdown_report(nowhere)
    evaluation_plots.plot_localization(nowhere, tmp_path / "localization.png")
    assert not (tmp_path / "localization.png").exists()
    assert evaluation_plots.plot_report(nowhere).size == roc.size
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="viz"):
        evaluation_plots.plot_roc(report, tmp_path / "roc.png")


def assert_close(found: Any, expected: Any) -> None:
    """The same structure, numbers equal to 1e-6."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list | float):
        assert found == pytest.approx(expected, abs=1e-6)
    else:
        assert found == expected


def test_two_processes_measure_what_one_does(
    model: pylon_zoo.LocalizationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tasks.TASKS, "marked", MarkedTask)
    folder = pylon_zoo.save_pretrained(model, tmp_path / "model")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, tiny_evaluation.__file__, str(folder), "--output", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("point localization") == 2  # of one process, two alignments
    two = json.loads((tmp_path / "two" / "report.json").read_text())
    assert two.pop("command") == f"pylon-zoo evaluate {folder} --data marked --split val"
    assert two["items"] == {"classification": 13, "localization": 7}
    one = evaluate(pylon_zoo.load_pretrained(folder), MarkedTask(), "val")
    assert_close(two, json.loads(json.dumps(one)))
    written = {path.name for path in (tmp_path / "two").iterdir()}
    assert written == {"report.json", "report.md", "roc.png", "localization.png"}


def test_other_classes_splits_and_no_numbers_are_refused(
    model: pylon_zoo.LocalizationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="'test'"):
        evaluate(model, MarkedTask(), "tset")
    with pytest.raises(UnknownNameError, match="'test'"):
        evaluate(model, MarkedTask(), "val", threshold_split="tset")
    other = pylon_zoo.create_model("cam_regnetx_002", class_names=("a", "b"))
    with pytest.raises(InvalidInputError, match=r"\('a', 'b'\) are not those of marked"):
        evaluate(other, MarkedTask(), "val")
    maps = torch.full((1, 6, 4, 4), float("nan"))
    monkeypatch.setattr("pylon_zoo.training.evaluation.get_cam", lambda *_a, **_k: maps)
    with pytest.raises(InvalidInputError, match="maps of phantom-0-val-0"):
        evaluate(model, MarkedTask(), "val", batch_size=1)
