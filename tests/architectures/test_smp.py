"""Agreement with segmentation_models_pytorch, whose decoders the PYLON paper compares with.

Its networks are given our weights. Where the two definitions coincide, so do the maps; where they
differ, the test says how, and undoes the difference in theirs. Dropout aside (in their FPN), the
maps are compared before they are upsampled to the image's size, which ours never are.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from pylon_zoo import LocalizationModel, create_model

smp = pytest.importorskip("segmentation_models_pytorch", reason="it is a development dependency")

#: Their FPN doubles sizes, so that they must halve evenly down to stride 32. Their PAN goes on to
#: stride 256 and crashes where a side is odd.
SIZE, PAN_SIZE = (64, 96), (256, 256)

UNET = {
    r"blocks\.(\d)\.conv(\d)\.conv\.": r"decoder.blocks.\1.conv\2.0.",
    r"blocks\.(\d)\.conv(\d)\.bn\.": r"decoder.blocks.\1.conv\2.1.",
}
FPN = {
    r"laterals\.0\.": "decoder.p5.",
    r"laterals\.1\.": "decoder.p4.skip_conv.",
    r"laterals\.2\.": "decoder.p3.skip_conv.",
    r"laterals\.3\.": "decoder.p2.skip_conv.",
    r"branches\.(\d)\.convs\.(\d)\.conv\.": r"decoder.seg_blocks.\1.block.\2.block.0.",
    r"branches\.(\d)\.convs\.(\d)\.norm\.": r"decoder.seg_blocks.\1.block.\2.block.1.",
}
PAN = {
    r"context\.": "decoder.fpa.branch1.1.",
    r"attention\.mid\.": "decoder.fpa.mid.0.",
    r"attention\.down(\d)\.": r"decoder.fpa.down\1.1.",
    r"attention\.up3\.": "decoder.fpa.down3.2.",
    r"attention\.up(\d)\.": r"decoder.fpa.conv\1.",
    **{rf"ups\.{i}\.skip\.": f"decoder.gau{3 - i}.conv2." for i in range(3)},
    **{rf"ups\.{i}\.context\.": f"decoder.gau{3 - i}.conv1.1." for i in range(3)},
}
DEEPLAB = {
    r"aspp\.local\.conv\.": "decoder.aspp.0.convs.0.0.",
    r"aspp\.local\.bn\.": "decoder.aspp.0.convs.0.1.",
    **{
        rf"aspp\.dilated\.{i}\.{ours}\.": f"decoder.aspp.0.convs.{i + 1}.{theirs}."
        for i in range(3)
        for ours, theirs in (("depthwise", "0.0"), ("pointwise", "0.1"), ("bn", "1"))
    },
    r"aspp\.context\.1\.conv\.": "decoder.aspp.0.convs.4.1.",
    r"aspp\.context\.1\.bn\.": "decoder.aspp.0.convs.4.2.",
    r"aspp\.project\.conv\.": "decoder.aspp.0.project.0.",
    r"aspp\.project\.bn\.": "decoder.aspp.0.project.1.",
    r"refine\.depthwise\.": "decoder.aspp.1.0.",
    r"refine\.pointwise\.": "decoder.aspp.1.1.",
    r"refine\.bn\.": "decoder.aspp.2.",
    r"skip\.conv\.": "decoder.block1.0.",
    r"skip\.bn\.": "decoder.block1.1.",
    r"fuse\.depthwise\.": "decoder.block2.0.0.",
    r"fuse\.pointwise\.": "decoder.block2.0.1.",
    r"fuse\.bn\.": "decoder.block2.1.",
}


def _ours(architecture: str, **options: Any) -> LocalizationModel:
    torch.manual_seed(0)
    model = create_model(f"{architecture}_resnet18", num_classes=3, **options).double().eval()
    # Fresh statistics, all zeros and ones, would not tell one norm from another.
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def _theirs(name: str, **options: Any) -> nn.Module:
    cls = getattr(smp, name)
    return cls("resnet18", encoder_weights=None, in_channels=1, classes=3, **options)


def _copy_weights(ours: LocalizationModel, theirs: nn.Module, renaming: dict[str, str]) -> None:
    renaming = {r"encoder\.model\.": "encoder.", r"head\.": "segmentation_head.0.", **renaming}
    state = {}
    for key, tensor in ours.state_dict().items():
        pattern = next(pattern for pattern in renaming if re.match(pattern, key))
        state[re.sub(rf"\A{pattern}", renaming[pattern], key)] = tensor
    theirs.double().eval().load_state_dict(state)  # every tensor finds its place


def _difference(ours: LocalizationModel, theirs: nn.Module, size: tuple[int, int] = SIZE) -> float:
    """The largest difference between the maps, relative to their spread."""
    images = torch.randn(1, 1, *size, dtype=torch.float64)
    with torch.no_grad():
        expected, received = theirs(images), ours(images).maps
    assert received.shape == expected.shape
    return ((received - expected).abs().max() / expected.std()).item()


def test_unet() -> None:
    ours = _ours("unet")
    theirs = _theirs("Unet", decoder_channels=(256, 128, 64, 64, 64))
    _copy_weights(ours, theirs, UNET)
    assert _difference(ours, theirs) < 1e-9


def test_fpn_with_group_norm() -> None:
    ours, theirs = _ours("fpn", norm="group"), _theirs("FPN", upsampling=1)
    _copy_weights(ours, theirs, FPN)
    assert _difference(ours, theirs) < 1e-9


def test_fpn_with_batch_norm_differs_in_the_norm_alone() -> None:
    ours, theirs = _ours("fpn", norm="batch"), _theirs("FPN", upsampling=1)
    for module in list(theirs.decoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.BatchNorm2d(128))
    _copy_weights(ours, theirs, FPN)
    assert _difference(ours, theirs) < 1e-9


def test_pan() -> None:
    """Theirs dilates the encoder to stride 16 and has 32 channels, unless told otherwise."""
    ours = _ours("pan")
    theirs = _theirs("PAN", encoder_output_stride=32, decoder_channels=128, upsampling=1)
    _copy_weights(ours, theirs, PAN)
    assert _difference(ours, theirs, PAN_SIZE) < 1e-9


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.new_full((len(features), 128, 1, 1), self.value)


def test_pan_without_global_context_differs_in_its_averages_alone() -> None:
    ours = _ours("pan", global_context=False)
    theirs = _theirs("PAN", encoder_output_stride=32, decoder_channels=128, upsampling=1)
    theirs.decoder.fpa.branch1 = _Constant(0)
    for unit in (theirs.decoder.gau1, theirs.decoder.gau2, theirs.decoder.gau3):
        unit.conv1 = _Constant(1)
    _copy_weights(ours, theirs, PAN)
    assert _difference(ours, theirs, PAN_SIZE) < 1e-9


@pytest.mark.parametrize("global_context", [True, False])
def test_deeplabv3plus_differs_in_one_dilation(global_context: bool) -> None:
    """Theirs dilates every convolution of the last stage, timm all but the first."""
    ours = _ours("deeplabv3plus", global_context=global_context)
    theirs = _theirs("DeepLabV3Plus", upsampling=1)
    if not global_context:  # theirs always has the pooled branch
        aspp = theirs.decoder.aspp[0]
        del aspp.convs[4]
        aspp.project[0] = nn.Conv2d(4 * 256, 256, 1, bias=False)
    _copy_weights(ours, theirs, DEEPLAB)
    assert _difference(ours, theirs) > 0.01
    first = theirs.encoder.layer4[0].conv1
    assert first.dilation == (2, 2)
    first.dilation = first.padding = (1, 1)
    assert _difference(ours, theirs) < 1e-9
