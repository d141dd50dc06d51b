from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from weights_helpers import CLASSES, make_model

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.errors import (
    CheckpointError,
    InvalidOptionError,
    UnknownNameError,
    WeightsNotFoundError,
)
from pylon_zoo.registry import create_model
from pylon_zoo.weights import adapt_model, load_pretrained, save_pretrained

FAMILIES = [
    ("pylon_test_resnet", {}, 64),
    ("cam_regnetx_002", {}, 64),
    ("pylon_swin_tiny_patch4_window7_224", {"img_size": 64}, 64),
    ("pylon_test_maxvit", {}, 160),
    ("pylon_test_convnext", {}, 64),
    ("cam_densenet121", {}, 64),
]


@pytest.mark.parametrize("form", ["folder", "path", "file", "local-dir"])
def test_forms_of_a_local_name(
    model: LocalizationModel, images: torch.Tensor, tmp_path: Path, form: str
) -> None:
    save_pretrained(model, tmp_path)
    name = {
        "folder": str(tmp_path),
        "path": tmp_path,
        "file": tmp_path / "model.safetensors",
        "local-dir": f"local-dir:{tmp_path}",
    }[form]
    loaded = load_pretrained(name)
    assert not any(module.training for module in loaded.modules())
    assert loaded.spec == model.spec
    assert torch.equal(loaded(images).maps, model(images).maps)


def test_a_folder_named_like_a_model(
    model: LocalizationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pretrained(model, tmp_path / "pylon_mine")
    monkeypatch.chdir(tmp_path)
    assert load_pretrained("pylon_mine").spec == model.spec
    with pytest.raises(UnknownNameError):
        load_pretrained("pylon_other")


@pytest.mark.parametrize(("name", "options", "side"), FAMILIES)
def test_loading_equals_building_and_load_state_dict(
    name: str, options: dict[str, int], side: int, tmp_path: Path
) -> None:
    source = make_model(3, name, **options)
    save_pretrained(source, tmp_path)
    expected = make_model(4, name, **options)
    expected.load_state_dict(source.state_dict())

    before = torch.get_rng_state()
    loaded = load_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    # Buffers that no checkpoint holds are compared as well.
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = dict(getattr(loaded, kind)()), dict(getattr(expected, kind)())
        assert list(ours) == list(theirs)
        for key, tensor in theirs.items():
            assert torch.equal(ours[key], tensor), key
            assert ours[key].dtype == tensor.dtype
            assert ours[key].requires_grad == tensor.requires_grad
    images = torch.randn(1, 1, side, side)
    with torch.no_grad():
        assert torch.equal(loaded(images).maps, expected(images).maps)


def test_no_random_numbers_are_drawn_for_the_weights(
    model: LocalizationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pretrained(model, tmp_path)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    before = torch.get_rng_state()
    load_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    create_model("pylon_test_resnet")
    assert not torch.equal(torch.get_rng_state(), before)


def test_the_weights_lie_in_one_place_and_train_on(
    model: LocalizationModel, images: torch.Tensor, tmp_path: Path
) -> None:
    save_pretrained(model, tmp_path)
    loaded = load_pretrained(tmp_path).train()
    before = {name: p.detach().clone() for name, p in loaded.named_parameters()}
    loaded(images).logits.square().mean().backward()
    torch.optim.SGD(loaded.parameters(), lr=1.0).step()
    assert not torch.equal(loaded.head.weight, before["head.weight"])
    assert not torch.equal(
        next(loaded.encoder.parameters()), before[next(k for k in before if k[:7] == "encoder")]
    )


def test_the_default_dtype_and_device_of_the_process_do_not_matter(
    model: LocalizationModel, images: torch.Tensor, tmp_path: Path
) -> None:
    save_pretrained(model, tmp_path)
    with torch.device("meta"):
        loaded = load_pretrained(tmp_path)
    assert torch.equal(loaded(images).maps, model(images).maps)
    torch.set_default_dtype(torch.float64)
    try:
        double = load_pretrained(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.head.weight.dtype == torch.float64
    torch.testing.assert_close(double(images.double()).maps.float(), model(images).maps)


def test_missing_files_are_named(model: LocalizationModel, tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"nothing.*save_pretrained"):
        load_pretrained(tmp_path / "nothing")
    save_pretrained(model, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsNotFoundError, match=r"config\.json"):
        load_pretrained(tmp_path)


def test_a_pickle_is_never_loaded(model: LocalizationModel, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth.*never loaded"):
        load_pretrained(tmp_path / "model.pth")


def test_a_config_that_nothing_can_be_built_from(model: LocalizationModel, tmp_path: Path) -> None:
    for options, what in (({"num_upp": 3}, "num_up"), ({"decoder_channels": 1 << 45}, "config")):
        save_pretrained(model, tmp_path)
        model.spec = replace(model.spec, options=options)
        save_pretrained(model, tmp_path)
        with pytest.raises(CheckpointError, match=f"pylon_test_resnet cannot be built.*{what}"):
            load_pretrained(tmp_path)


def test_other_classes_make_a_new_head(
    model: LocalizationModel, images: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    features = model.decode(model.encoder(images))
    old = model.head.weight.detach().clone()
    adapt_model(model, class_names=CLASSES, num_classes=2, in_chans=1)
    assert torch.equal(model.head.weight, old)
    assert caplog.records == []

    with caplog.at_level(logging.WARNING, "pylon_zoo"):
        adapt_model(model, class_names=("a", "b", "c"))
    assert model.spec.class_names == ("a", "b", "c")
    assert model(images).logits.shape == (2, 3)
    assert torch.equal(model.decode(model.encoder(images)), features)
    assert "2 classes was replaced by one for 3, of which all are random" in caplog.text

    # As many classes of other names are other classes.
    old = model.head.weight.detach().clone()
    adapt_model(model, class_names=("x", "y", "z"))
    assert not torch.equal(model.head.weight, old)
    with pytest.raises(InvalidOptionError, match="num_classes is 4, but class_names has 2"):
        adapt_model(model, num_classes=4, class_names=("x", "y"))


def test_classes_keep_their_weights_by_their_names(
    model: LocalizationModel, images: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    adapt_model(model, class_names=("nodule", "mass", "edema"))
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    maps = model(images).maps
    caplog.clear()

    with caplog.at_level(logging.WARNING, "pylon_zoo"):
        adapt_model(model, class_names=("Edema", "hernia", "Nodule", "mass"))
    assert "one for 4, of which 3 kept their weights by their names" in caplog.text
    adapted = model(images).maps
    assert torch.equal(adapted[:, [2, 3, 0]], maps)
    assert not any(torch.equal(adapted[:, 1], maps[:, k]) for k in range(3))

    # Another order alone leaves nothing to train.
    caplog.clear()
    adapt_model(model, class_names=("hernia", "Edema", "Nodule", "mass"))
    assert caplog.records == []
    assert torch.equal(model(images).maps, adapted[:, [1, 0, 2, 3]])


def test_names_for_classes_that_had_none(images: torch.Tensor) -> None:
    model = make_model(num_classes=2, class_names=None)
    maps = model(images).maps
    adapt_model(model, class_names=("x", "y"))
    assert model.spec.class_names == ("x", "y")
    assert torch.equal(model(images).maps, maps)


@pytest.mark.parametrize("name", ["pylon_test_resnet", "cam_tresnet_m", "pylon_test_convnext"])
@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1), (3, 4), (2, 5)])
def test_adapted_stems_see_gray_images_as_before(
    name: str, old: int, new: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model(1, name, in_chans=old, num_classes=2)
    gray = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = model(gray.expand(-1, old, -1, -1)).maps
        model.head.requires_grad_(False)
        adapt_model(model, in_chans=new)
        after = model(gray.expand(-1, new, -1, -1)).maps
    assert model.spec.in_chans == model.spec.preprocessing.input_size[0] == new
    assert model.spec.preprocessing.mean == (0.4984,) * new
    if new % old == 0 or new == 1:
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    else:
        assert after.isfinite().all()
    assert f"{old} input channel(s) was adapted to {new}" in caplog.text


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 2), (3, 5)])
def test_adapted_filters_are_timms(old: int, new: int) -> None:
    from timm.models import adapt_input_conv

    model = make_model(1, in_chans=old, num_classes=2)
    stem = next(k for k, v in model.encoder.state_dict().items() if v.ndim == 4 and v.shape[1] == 3)
    filters = model.encoder.state_dict()[stem].clone()
    adapt_model(model, in_chans=new)
    adapted = model.encoder.state_dict()[stem]
    torch.testing.assert_close(adapted, adapt_input_conv(new, filters))


def test_statistics_follow_the_channels() -> None:
    model = make_model(in_chans=3, num_classes=2)
    look = replace(model.spec.preprocessing, mean=(0.1, 0.2, 0.6), std=(0.5, 0.25, 0.75))
    for new, mean, std in [(1, (0.3,), (0.5,)), (4, (0.1, 0.2, 0.6, 0.1), (0.5, 0.25, 0.75, 0.5))]:
        other = make_model(in_chans=3, num_classes=2)
        other.spec = replace(other.spec, preprocessing=look, tag="x")
        adapt_model(other, in_chans=new)
        assert other.spec.preprocessing.mean == pytest.approx(mean)
        assert other.spec.preprocessing.std == pytest.approx(std)
        assert other.spec.tag == ""
    with pytest.raises(InvalidOptionError, match="at least 1; got 0"):
        adapt_model(model, in_chans=0)
