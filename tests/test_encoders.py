from __future__ import annotations

import pytest
import timm

from pylon_zoo.encoders import similar_encoders, survey


def test_survey_is_complete() -> None:
    content = survey()
    assert set(content) == {"timm", "encoders", "refused"}
    assert not content["encoders"].keys() & content["refused"].keys()
    for record in content["encoders"].values():
        assert {4, 8, 16, 32} <= set(record["strides"])
        assert ("multiple" in record or "img_size" in record) == ("adjustable" in record)
        assert not {"multiple", "img_size"} <= set(record)
    for record in content["refused"].values():
        assert not {4, 8, 16, 32} <= set(record["strides"])


@pytest.mark.skipif(timm.__version__ != survey()["timm"], reason="the survey is of another timm")
def test_survey_is_of_this_timm() -> None:
    assert set(timm.list_models()) == set(survey()["encoders"]) | set(survey()["refused"])


def test_size_limits_of_known_families() -> None:
    encoders = survey()["encoders"]
    assert "img_size" not in encoders["resnet50"]
    assert encoders["swin_tiny_patch4_window7_224"]["img_size"] == [224, 224]
    assert encoders["hiera_tiny_224"]["img_size"] == [224, 224]
    assert encoders["maxvit_rmlp_pico_rw_256"]["multiple"] == 256
    assert encoders["dla34"]["multiple"] == 32
    assert encoders["mvitv2_tiny"]["img_size"] == [224, 224]


def test_similar_encoders_are_of_the_family_and_the_size() -> None:
    record = survey()["encoders"]["resnet101"]
    family, params = record["family"], record["params"]
    similar = similar_encoders("resnet101", family, params)
    assert len(similar) == 3
    assert "resnet101" not in similar
    for name in similar:
        assert survey()["encoders"][name]["family"] == family
        assert 0.5 < survey()["encoders"][name]["params"] / params < 2
    dilating = similar_encoders(
        "swin_tiny_patch4_window7_224", "swin_transformer", 28_000_000, dilates=True, count=5
    )
    assert len(dilating) == 5
    assert all(survey()["encoders"][name]["dilates"] for name in dilating)
