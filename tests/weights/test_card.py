from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from weights_helpers import make_model

from pylon_zoo.weights.card import commands, model_card
from pylon_zoo.weights.manifest import Metric, Precision, Record


def card(record: Record | None, **more: Any) -> str:
    model = make_model()
    given = {"load": "hf-hub:org/repo", "sha256": "ab" * 32, "size": 1234567} | more
    return model_card(model.spec, record, **given)


@pytest.fixture
def measured(record: Record) -> Record:
    """A record with every kind of metric, of one class, both classes or means."""
    (auroc,) = record.metrics

    def metric(name: str, value: float, chance: float | None, support: int) -> Metric:
        return replace(
            auroc, name=name, value=value, interval=(value - 0.05, value + 0.05),
            chance=chance, support=support,
        )  # fmt: skip

    place = "point_localization"
    return replace(
        record,
        metrics=(
            metric("auroc_macro", 0.9, 0.5, 40),
            metric("auroc_disc", 0.8, 0.5, 30),
            metric("auroc_ring", 0.91, 0.5, 10),
            metric(f"{place}_corners_false_micro", 0.71, 0.11, 25),
            metric(f"{place}_corners_false_disc", 0.7, 0.1, 25),
            metric(f"{place}_receptive_field_disc", 0.65, 0.1, 25),
            metric("ece_macro", 0.07, None, 40),
            metric("ece_disc", 0.06, None, 30),
            metric("brier_disc", 0.12, 0.2, 30),
            metric("sensitivity_disc", 0.85, 0.4, 30),
            metric("specificity_disc", 0.75, 0.6, 10),
            metric("hit|rate", 0.33, None, 3),
        ),
        thresholds_rule="Youden's J on the val split",
        precision=Precision(dtype="float16", largest_change=0.0012, metric="auroc_disc"),
    )


def test_what_a_card_says(record: Record) -> None:
    text = card(record, pictures=["gallery.png", "heatmap.png"])
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    metadata = yaml.safe_load(head)
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "pylon_zoo"
    assert body.lstrip().startswith("# pylon_test_resnet\n")
    for words in (
        "## Architecture",
        "`pylon`",
        "`test_resnet` (timm)",
        "| classes | disc, ring |",
        "resized to 256 x 256 px (bicubic)",
        "mean [0.4984], std [0.2483]",
        "## Intended use",
        "**Not for clinical use.**",
        "[phantom](https://example.org/phantom), licence: CC0-1.0",
        "- train: seeds 0-7",
        "```bash\npylon-zoo train phantom\n"
        "pylon-zoo evaluate pylon_dla46_c.phantom --data phantom --split test\n```",
        "## Results on phantom, test split",
        "| macro | 40 | 0.900 [0.850, 0.950] |",
        "| ring | 0.25 |",
        "The weights: Apache-2.0.",
        "1,234,567 bytes, sha256 `" + "ab" * 32,
        'load_pretrained("hf-hub:org/repo")',
        "`hf-hub:org/repo@<commit>`",
        "](heatmap.png)",
        "](gallery.png)\n\nFor each class, of the images of the test split of phantom that have",
        "The images are not ours",
        "gallery pylon_test_resnet --root DIR --with-images`",
        "arXiv:2010.11475",
    ):
        assert words in body, words
    for words in ("### Calibration", "### Precision", "Chosen by", "float16"):
        assert words not in body
    assert "weights reproduce" not in body
    ours = replace(record, data=replace(record.data, url="pylon_zoo.data.Phantom"))
    text = card(ours, pictures=["gallery.png"], load="pylon_test_resnet.x")
    assert "The images are not ours" not in text
    assert 'load_pretrained("pylon_test_resnet.x")' in text
    assert "@<commit>" not in text


def test_a_row_for_each_class_and_mean(measured: Record) -> None:
    text = card(measured)
    for words in (
        "| class | n | AUROC [95 %] | pairs | localization, `corners_false` [95 %] "
        "| localization, `receptive_field` [95 %] | chance | threshold |",
        "| disc | 30 | 0.800 [0.750, 0.850] | 25 | 0.700 [0.650, 0.750] | 0.650 [0.600, 0.700] "
        "| 0.100 | 0.5 |\n| ring | 10 | 0.910 [0.860, 0.960] |  |  |  |  | 0.25 |\n"
        "| macro | 40 | 0.900 [0.850, 0.950] |  |  |  |  |  |\n"
        "| micro |  |  | 25 | 0.710 [0.660, 0.760] |  | 0.110 |  |\n",
        "AUROC by chance: 0.500.",
        "| class | ECE [95 %] | Brier score [95 %] | Brier score by chance |",
        "| disc | 0.060 [0.010, 0.110] | 0.120 [0.070, 0.170] | 0.200 |\n"
        "| macro | 0.070 [0.020, 0.120] |  |  |",
        "Chosen by Youden's J on the val split.",
        "| disc | 0.5 | 0.850 [0.800, 0.900] | 0.750 [0.700, 0.800] |\n| ring | 0.25 |  |  |",
        "stored as float16.",
        "0.0012 (`auroc_disc`)",
        r"| hit\|rate | 0.330 [0.280, 0.380] |  | 3 |",
    ):
        assert words in text, words


def test_what_is_said_of_calibration_is_what_was_measured(record: Record, measured: Record) -> None:
    def said(record: Record | None) -> str:
        return " ".join(card(record).split())

    assert "Its scores are not calibrated probabilities, its maps" in said(None)
    assert "Its scores are not calibrated probabilities, its maps" in said(record)
    assert (
        "Its scores are not calibrated probabilities (on phantom, test split, their expected "
        "calibration error is 0.070, the mean over classes;" in said(measured)
    )


def test_one_command_trains_again_and_compares(record: Record) -> None:
    spec = replace(make_model().spec, tag="phantom")
    for command, options in (
        ("pylon-zoo train phantom", ""),
        ("pylon-zoo train x --set root=DIR", " --root DIR"),
    ):
        text = commands(spec, replace(record, command=command), "sh")
        assert text.endswith(
            f"```sh\n{command}\n{record.metrics[0].command}\n"
            f"pylon-zoo weights reproduce pylon_test_resnet.phantom{options}\n```"
        )


def test_places_are_told_apart(record: Record) -> None:
    (auroc,) = record.metrics
    text = card(replace(record, metrics=(auroc, replace(auroc, split="val", value=0.86))))
    first, second = text.split("## Results on phantom, ")[1:]
    assert first.startswith("test split")
    assert second.startswith("val split")
    assert "0.900 [" in first
    assert "0.860 [" not in first
    assert "0.860 [" in second


def test_what_nobody_recorded_is_not_claimed() -> None:
    text = card(None)
    assert "was not recorded" in text
    assert ".png" not in text.partition("## Quickstart")[0]
    assert "## Results" not in text
    assert "license:" not in text


def test_other_licences_and_odd_names(record: Record) -> None:
    record = replace(
        record,
        weights_license='Research "only" | v1',
        metrics=(replace(record.metrics[0], name="a|b", chance=None),),
        thresholds=None,
    )
    text = card(record)
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["license"] == "other"
    assert metadata["license_name"] == "research-only-v1"
    assert r"| a\|b | 0.900 [0.850, 0.950] |  | 40 |" in text
    assert "threshold" not in text
    assert "Nothing was measured" in card(replace(record, metrics=()))
