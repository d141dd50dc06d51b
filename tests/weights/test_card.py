from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from weights_helpers import make_model

from pylon_zoo.weights.card import model_card
from pylon_zoo.weights.manifest import Record


def card(record: Record | None, **more: Any) -> str:
    model = make_model()
    return model_card(
        model.spec, record, repo_id="org/repo", sha256="ab" * 32, size=1234567, **more
    )


def test_what_a_card_says(record: Record) -> None:
    text = card(record, picture="heatmap.png")
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
        "```bash\npylon-zoo train phantom\n```",
        "| auroc_macro | 0.900 | 0.850 to 0.950 (95%) | 0.500 | 40 | phantom, test |",
        "pylon-zoo evaluate pylon_regnetx_002.phantom --data phantom --split test\n```",
        "| ring | 0.250 |",
        "The weights: Apache-2.0.",
        "1,234,567 bytes, sha256 `" + "ab" * 32,
        'load_pretrained("hf-hub:org/repo")',
        "](heatmap.png)",
        "arXiv:2010.11475",
    ):
        assert words in body, words


def test_what_nobody_recorded_is_not_claimed() -> None:
    text = card(None)
    assert "was not recorded" in text
    assert "heatmap.png" not in text
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
    assert r"| a\|b | 0.900 | 0.850 to 0.950 (95%) |  | 40 |" in text
    assert "threshold" not in text
    assert "Nothing was measured" in card(replace(record, metrics=()))
