import pytest
import torch
from torch import Tensor, nn

from pylon_zoo import create_model
from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.errors import InvalidOptionError


def trained(model: LocalizationModel) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Losses and gradients of two steps, and the state after them; inputs are always the same."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seen = []
    for _ in range(2):
        images = torch.randn(3, 1, 96, 64)
        loss = model(images).logits.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    return seen, model.state_dict()


@pytest.mark.parametrize(
    "name",
    [
        "pylon_resnet10t",
        "unet_regnetx_002",
        "pylon_densenet121",
        "cam_convnext_atto",
        "pylon_vgg11_bn",
        "fpn_resnest14d",
        "cam_swin_tiny_patch4_window7_224",
    ],
)
def test_it_trains_to_the_same_bits(name: str) -> None:
    options = {"img_size": (96, 64)} if "swin" in name else {}
    runs = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = create_model(name, num_classes=2, **options)
        model.set_grad_checkpointing(enable)
        runs.append(trained(model))
    (plain, state), (recomputed, other_state) = runs
    assert len(plain) == len(recomputed)
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert all(torch.equal(tensor, other_state[key]) for key, tensor in state.items())


def kept_bytes(model: LocalizationModel) -> int:
    """Bytes of distinct activations that a graph holds on to."""
    kept: dict[int, Tensor] = {}
    parameters = {p.data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(2, 1, 128, 128))
    return sum(tensor.nbytes for tensor in kept.values())


def test_it_remembers_less() -> None:
    model = create_model("cam_resnet18")
    plain = kept_bytes(model)
    model.set_grad_checkpointing()
    assert kept_bytes(model) < 0.6 * plain
    model.set_grad_checkpointing(False)
    assert kept_bytes(model) == plain


def test_frozen_norms_stay_frozen() -> None:
    gradients = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = create_model("cam_resnet10t", num_classes=2)
        model.set_grad_checkpointing(enable)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                nn.init.constant_(module.running_mean, 0.1)  # type: ignore[arg-type]
        seen, state = trained(model)
        assert (state["encoder.model.bn1.running_mean"] == 0.1).all()
        gradients.append(seen)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_an_encoder_of_one_piece_says_so() -> None:
    model = create_model("cam_hrnet_w18_small")
    with pytest.raises(InvalidOptionError, match=r"'hrnet_w18_small' computes its features in one"):
        model.set_grad_checkpointing()
    model.set_grad_checkpointing(False)
