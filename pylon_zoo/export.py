"""Models for other runtimes: ONNX and torch.export, compared with eager before they are written."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.architectures.encoder import MIN_SIZE
from pylon_zoo.errors import ExportError, MissingExtraError, unknown_name
from pylon_zoo.weights.files import replace_file

__all__ = ["FORMATS", "ExportReport", "export"]

logger = logging.getLogger(__name__)

FORMATS = ("onnx", "torch_export")

#: Names of a file's inputs and outputs.
INPUT_NAME, OUTPUT_NAMES = "images", ("logits", "maps")

#: Size that a model of any size is traced at: its features are at least 2 x 2 cells even at stride
#: 256, for tracing takes a side of one cell for a constant. Height and width differ, for tracing
#: may take equal numbers for the same.
TRACE_SIZE = (288, 320)

Size = tuple[int, int]
Program = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how near it is to the model; stored beside the file as JSON.

    Attributes:
        format: ``"onnx"`` or ``"torch_export"``.
        model: the spec of the model as ``config.json`` has it: classes, preprocessing, options.
        dynamic_size: whether the file takes images of other sizes; the batch's is always free.
        max_relative_difference: per output, the largest difference from the model over all
            ``compared`` batches, divided by the output's largest magnitude.
        compared: shapes (B, C, H, W) of the batches on which file and model were compared.
        refused: shapes that a file of dynamic size does not take all the same: torch.export tells
            sides of one cell from longer ones.
        torch: the version that wrote the file.
    """

    format: str
    model: dict[str, Any]
    dynamic_size: bool
    max_relative_difference: dict[str, float]
    compared: list[list[int]]
    refused: list[list[int]]
    torch: str


def export(
    model: LocalizationModel,
    path: str | Path,
    format: str = "onnx",  # noqa: A002 - the word that every exporter uses
    *,
    image_size: Size | None = None,
    dynamic_size: bool | None = None,
    tolerance: float = 1e-4,
) -> ExportReport:
    """Write a model as one file that runs without this package; float32, on any batch size.

    The file takes ``images`` (B, C, H, W), preprocessed, and returns the pair ``logits`` (B, K) and
    ``maps`` (B, K, h, w). It is run on random images before it takes its name, and ``{path}.json``
    holds the :class:`ExportReport`. The model itself stays as it is.

    Args:
        model: any model of the zoo.
        path: e.g. ``"model.onnx"`` or, for torch.export, ``"model.pt2"``; an existing file is
            replaced as a whole.
        format: ``"onnx"`` or ``"torch_export"``.
        image_size: (H, W) of the images; None means what the model was trained on.
        dynamic_size: True for a file that takes images of any size, False for ``image_size`` only;
            None means True where the encoder allows it.
        tolerance: largest relative difference from the model that is accepted.

    Raises:
        UnknownNameError: no such format.
        InvalidInputError: the encoder does not take ``image_size``.
        ExportError: the model cannot be traced, or the file computes something else.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    if format not in FORMATS:
        raise unknown_name("export format", format, FORMATS)
    if format == "onnx":
        _require_onnx()
    if not hasattr(torch.export.Dim, "DYNAMIC"):
        raise ExportError(f"Exporting needs torch 2.6 or newer; this is {torch.__version__}.")
    path = Path(path)
    twin = copy.deepcopy(model).cpu().float().eval()
    size = image_size or twin.spec.preprocessing.input_size[1:]
    twin.encoder.check_size(*size)
    free = twin.encoder.img_size is None and twin.encoder.multiple == 1
    if dynamic_size and not free:
        raise ExportError(
            f"Encoder {twin.encoder.name!r} is bound to a size, so that the file cannot take every "
            f"one. Leave dynamic_size out, and give the image_size that you need."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        if dynamic_size or (dynamic_size is None and free):
            try:
                report = _write(twin, temporary, format, size, True, tolerance)
            except ExportError as error:
                if dynamic_size:
                    raise
                logger.info("%s Writing a file for images of %d x %d only.", error, *size)
                report = _write(twin, temporary, format, size, False, tolerance)
        else:
            report = _write(twin, temporary, format, size, False, tolerance)
    with replace_file(path.with_name(path.name + ".json")) as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    return report


def _write(
    model: LocalizationModel, path: Path, kind: str, size: Size, dynamic: bool, tolerance: float
) -> ExportReport:
    """Write the file and compare what was written with the model."""
    write = _write_onnx if kind == "onnx" else _write_torch_export
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own, about their internals
        try:
            program = write(model, path, size, dynamic)
        except Exception as error:
            raise ExportError(
                f"{model.spec.name} cannot be traced for {kind} with "
                f"{'any' if dynamic else 'one'} size of image: {error}"
            ) from error
    batches = [(1, size), (3, size)]
    if dynamic:
        smaller = (max(MIN_SIZE, size[0] - 31), max(MIN_SIZE, size[1] - 15))
        batches += [(1, (MIN_SIZE, MIN_SIZE)), (1, smaller), (2, (225, 310)), (1, TRACE_SIZE)]
    difference = dict.fromkeys(OUTPUT_NAMES, 0.0)
    compared, refused = [], []
    generator = torch.Generator().manual_seed(0)
    for batch, (height, width) in batches:
        shape = [batch, model.encoder.in_chans, height, width]
        images = torch.randn(shape, generator=generator)
        with torch.no_grad():
            expected = model(images)
        try:
            outputs = program(images)
        except (AssertionError, RuntimeError) as error:
            if kind == "onnx" or (height, width) == size:
                raise ExportError(f"The {kind} file fails on a batch {shape}: {error}") from error
            refused.append(shape)
            continue
        compared.append(shape)
        for name, output, wanted in zip(OUTPUT_NAMES, outputs, expected, strict=True):
            relative = ((output - wanted).abs().max() / wanted.abs().max()).item()
            # Not `relative > tolerance`, which NaN would pass.
            if not relative <= tolerance:
                raise ExportError(
                    f"The {kind} file's {name} differ from the model's by {relative:.2g} of "
                    f"their magnitude on a batch {shape}; tolerated is {tolerance:.2g}."
                )
            difference[name] = max(difference[name], relative)
    return ExportReport(
        format=kind,
        model=model.spec.to_config(),
        dynamic_size=any((shape[2], shape[3]) != size for shape in compared),
        max_relative_difference=difference,
        compared=compared,
        refused=refused,
        torch=torch.__version__,
    )


class _Plain(nn.Module):
    """Returns a plain tuple: a file shall be read where this package is not installed."""

    def __init__(self, model: LocalizationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, maps = self.model(images)
        return logits, maps


def _trace_arguments(
    model: LocalizationModel, size: Size, dynamic: bool
) -> tuple[tuple[Tensor], tuple[dict[int, Any]]]:
    """An example of images, and which of their axes are free."""
    free = (0, 2, 3) if dynamic else (0,)
    images = torch.zeros(2, model.encoder.in_chans, *size)
    return (images,), (dict.fromkeys(free, torch.export.Dim.DYNAMIC),)


def _write_torch_export(model: LocalizationModel, path: Path, size: Size, dynamic: bool) -> Program:
    arguments, shapes = _trace_arguments(model, size, dynamic)
    program = torch.export.export(_Plain(model), arguments, dynamic_shapes=shapes)
    config = {"config.json": json.dumps(model.spec.to_config())}
    with path.open("wb") as output:
        torch.export.save(program, output, extra_files=config)
    with path.open("rb") as written:
        module = torch.export.load(written).module()

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits, maps = module(images)
        return logits, maps

    return run


def _write_onnx(model: LocalizationModel, path: Path, size: Size, dynamic: bool) -> Program:
    import onnx
    import onnxruntime

    arguments, shapes = _trace_arguments(model, TRACE_SIZE if dynamic else size, dynamic)
    program = torch.onnx.export(
        _Plain(model),
        arguments,
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=[INPUT_NAME],
        output_names=list(OUTPUT_NAMES),
        verbose=False,
    )
    assert program is not None  # that is what dynamo=True returns
    proto = program.model_proto
    # Shapes inside the graph were deduced for the traced size and are not true of every other.
    del proto.graph.value_info[:]
    names = {
        INPUT_NAME: ("batch", "", "height", "width"),
        "logits": ("batch", ""),
        "maps": ("batch", "", "map_height", "map_width"),
    }
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in zip(value.type.tensor_type.shape.dim, names[value.name], strict=True):
            if axis.dim_param:
                axis.dim_param = name
    config = proto.metadata_props.add()
    config.key, config.value = "pylon_zoo.config", json.dumps(model.spec.to_config())
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, maps = session.run(list(OUTPUT_NAMES), {INPUT_NAME: images.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(maps)

    return run


def _require_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "export", "Exporting to ONNX")
