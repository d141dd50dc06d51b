import pytest
import torch

import pylon_zoo
from pylon_zoo.errors import UnknownNameError
from pylon_zoo.training.freezing import set_train_mode


@pytest.fixture
def model() -> pylon_zoo.LocalizationModel:
    torch.manual_seed(0)
    return pylon_zoo.create_model("pylon_test_efficientnet", num_classes=2)


def changed(model: pylon_zoo.LocalizationModel) -> set[str]:
    """First parts of the names of all tensors that a step of training changes."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(2, 1, 64, 64)).logits.sum().backward()
    optimizer.step()
    return {
        name.partition(".")[0]
        for name, tensor in model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }


def test_a_frozen_encoder_stands_still_statistics_included(
    model: pylon_zoo.LocalizationModel,
) -> None:
    set_train_mode(model, "encoder")
    assert changed(model) == {"attention", "ups", "head"}
    set_train_mode(model, "encoder, head")
    assert changed(model) == {"attention", "ups"}
    set_train_mode(model)
    assert changed(model) == {"encoder", "attention", "ups", "head"}
    assert all(module.training for module in model.modules())


def test_frozen_statistics_with_weights_that_train(model: pylon_zoo.LocalizationModel) -> None:
    set_train_mode(model, batch_norm="frozen")
    before = {k: v.clone() for k, v in model.named_buffers()}
    assert changed(model) == {"encoder", "attention", "ups", "head"}
    assert all(torch.equal(v, before[k]) for k, v in model.named_buffers())


def test_an_unknown_part_suggests_the_nearest(model: pylon_zoo.LocalizationModel) -> None:
    with pytest.raises(UnknownNameError, match="'encoder'"):
        set_train_mode(model, "encodr")
