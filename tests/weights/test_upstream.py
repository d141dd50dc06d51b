"""The authors' checkpoints give the authors' outputs, and no other file is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures.reference import CASES, Case, case_id, check_case, state_dict
from torch import nn

from pylon_zoo.errors import CheckpointError, StateDictError, WeightsNotFoundError
from pylon_zoo.weights.upstream import load_upstream

CASE = {case_id(case): case for case in CASES}
OPTIONS = {
    "pylon": {},
    "pylon_1layer": {"up_layers": 1},
    "pylon_nopa": {"pyramid_attention": False},
    "pylon_up2": {"num_up": 2},
    "pylon_up1": {"num_up": 1},
    "cam_max": {},
    "cam_avg": {"pooling": "avg"},
    "li2018": {},
    "unet": {},
    "fpn_bn": {},
    "fpn_gn": {"norm": "group"},
    "pan": {},
    "pan_nogap": {"global_context": False},
}


def test_all_reference_cases_are_covered() -> None:
    assert len(CASES) == 15
    assert {case["kind"] for case in CASES} == set(OPTIONS)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_reference_case(case: Case) -> None:
    pooling = "avg" if case["kind"] == "cam_avg" else None
    model = load_upstream(state_dict(case), pooling=pooling)
    assert not model.training
    assert model.spec.architecture == case["kind"].split("_")[0]
    assert model.spec.encoder == case["encoder"]
    assert model.spec.options == OPTIONS[case["kind"]]
    assert (model.spec.num_classes, model.spec.in_chans) == (14, 1)
    check_case(model, case)


def test_file_with_wrappings(tmp_path: Path) -> None:
    case = CASE["cam_max-resnet18"]
    state = {f"module.{k}": v for k, v in state_dict(case).items()}
    torch.save({"state_dict": state}, tmp_path / "best.pt")
    names = tuple(f"finding {i}" for i in range(14))
    model = load_upstream(tmp_path / "best.pt", class_names=names)
    assert model.spec.class_names == names
    check_case(model, case)


class _Evil(nn.Linear):
    """Would leave a trace if it were ever unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.trace),)


def test_whole_model_is_refused_and_never_run(tmp_path: Path) -> None:
    evil = _Evil(1, 1)
    evil.trace = str(tmp_path / "trace")
    torch.save(evil, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt holds Python objects.*state_dict\(\)"):
        load_upstream(tmp_path / "model.pt")
    assert not (tmp_path / "trace").exists()


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"no_such\.pt"):
        load_upstream(tmp_path / "no_such.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(CheckpointError, match=r"cut\.pt cannot be read"):
        load_upstream(tmp_path / "cut.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="Expected a state dict"):
        load_upstream(tmp_path / "list.pt")
    torch.save({"weight": torch.zeros(1), "epoch": 3}, tmp_path / "mixed.pt")
    with pytest.raises(CheckpointError, match="'epoch' hold something else"):
        load_upstream(tmp_path / "mixed.pt")


def test_foreign_layouts_are_named() -> None:
    with pytest.raises(StateDictError, match=r"none of the authors' networks.*'fc\.weight'"):
        load_upstream({"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)})
    state = state_dict(CASE["pylon-resnet18"])
    with pytest.raises(StateDictError, match=r"left over: 'extra\.weight'"):
        load_upstream({**state, "extra.weight": torch.zeros(1)})
    del state["net.decoder.pa.down2.1.conv.bias"]
    with pytest.raises(StateDictError, match=r"missing: 'attention\.down2\.conv\.bias'"):
        load_upstream(state)
    del state["net.decoder.pa.mid.0.conv.weight"]
    with pytest.raises(StateDictError, match=r"pa\.mid\.0\.conv\.weight' is missing"):
        load_upstream(state)
    with pytest.raises(StateDictError, match=r"deeplabv3plus.*cannot be imported"):
        load_upstream({"net.decoder.aspp.0.convs.0.0.weight": torch.zeros(1)})
    state = state_dict(CASE["cam_max-resnet18"])
    wide = {k: torch.cat([v, v]) if v.shape[:1] == (512,) else v for k, v in state.items()}
    with pytest.raises(StateDictError, match=r"encoder .* is none of those that can be imported"):
        load_upstream(wide)
    del state["net.conv1.weight"]
    with pytest.raises(StateDictError, match="first convolution is missing"):
        load_upstream(state)
