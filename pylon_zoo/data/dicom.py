"""DICOM images through pydicom (extra ``dicom``).

Only pixels leave this module: no header value is returned, logged or put into an error message,
since headers name patients.
"""

from __future__ import annotations

import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylon_zoo.errors import ImageReadError, MissingExtraError, PylonZooError

__all__ = ["DICOM_SUFFIXES", "count_dicom_frames", "is_dicom", "read_dicom"]

DICOM_SUFFIXES = (".dcm", ".dicom")
DEFLATED = "1.2.840.10008.1.2.1.99"
#: A deflated dataset that grows beyond this is more likely a decompression bomb than an image.
MAX_INFLATED = 2**28

Array = NDArray[Any]


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM: by its magic bytes, or else by its suffix."""
    with path.open("rb") as file:
        magic = file.read(132)[128:] == b"DICM"
    return magic or path.suffix.lower() in DICOM_SUFFIXES


def count_dicom_frames(path: str | os.PathLike[str]) -> int:
    """Frames that a DICOM file says it has; nothing else is read of it.

    Raises:
        MissingExtraError: pydicom is not installed.
        Exception: nearly any, where the file is damaged.
    """
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise MissingExtraError("pydicom", "dicom", "Reading DICOM") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = ["NumberOfFrames"]
        dataset = dcmread(path, force=True, stop_before_pixels=True, specific_tags=wanted)
        return int(dataset.get("NumberOfFrames") or 1)


def read_dicom(path: str | os.PathLike[str], frame: int = 0, *, max_pixels: int = 2**28) -> Tensor:
    """Read one frame of a DICOM file as it is meant to be looked at.

    Gray values pass the modality LUT or rescale, then the first VOI LUT or window of the file,
    whose ends become 0 and 65535; without either, the smallest and largest value of the frame
    do (padding pixels left out). MONOCHROME1 is inverted, so that larger is always brighter.

    Args:
        path: a DICOM file, with or without its preamble.
        frame: index from 0 in a multi-frame file.
        max_pixels: a larger frame is refused before it is decoded.

    Returns:
        (1, H, W) uint16 for gray, (3, H, W) uint8 for color images, over the type's whole range.

    Raises:
        MissingExtraError: pydicom is not installed.
        ImageReadError: the file is missing, damaged, too large, holds no image or no such frame,
            or needs a decoder that is not installed; names the file.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pydicom", "dicom", "Reading DICOM") from error
    path = Path(path)
    # What pydicom says of a damaged file may quote its header, so neither its warnings nor its
    # messages are passed on; and a damaged file makes it raise nearly anything.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _read(path, frame, max_pixels)
        except PylonZooError:
            raise
        except FileNotFoundError:
            raise ImageReadError(f"{path}: there is no such file.") from None
        except Exception as error:
            raise ImageReadError(
                f"{path}: the DICOM file is damaged, or its pixels are of a kind that is not "
                f"read ({type(error).__name__})."
            ) from None


def _read(path: Path, frame: int, max_pixels: int) -> Tensor:
    from pydicom import dcmread
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    _refuse_inflating(path)
    dataset = dcmread(path, force=True)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageReadError(f"{path} is no DICOM image: it has no pixel data.")
    height, width = int(dataset.Rows), int(dataset.Columns)
    if height * width > max_pixels:
        raise ImageReadError(
            f"{path}: {width} x {height} px is more than the {max_pixels} px that are read; "
            f"reduce the image first."
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not 0 <= frame < frames:
        raise ImageReadError(f"{path} has {frames} frame(s); there is no frame {frame} from 0.")
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise ImageReadError(
            f"{path}: its pixels are compressed as {syntax.name}, for which pydicom finds no "
            f"decoder; install one: pip install python-gdcm, or pylibjpeg with its plugins."
        )
    pixels: Array = pixel_array(dataset, index=frame)
    if pixels.ndim == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _color(pixels, dataset)
    return _gray(pixels, dataset)


def _color(pixels: Array, dataset: Any) -> Tensor:
    from pydicom.pixels import apply_color_lut

    bits = int(dataset.BitsStored)
    if pixels.ndim == 2:
        pixels = apply_color_lut(pixels, dataset)[..., :3]
        bits = 8 * pixels.dtype.itemsize
    unit = pixels.astype(np.float32) / np.float32(2**bits - 1)
    scaled = (unit.clip(0, 1) * 255).round().astype(np.uint8)
    return torch.from_numpy(scaled).permute(2, 0, 1).contiguous()


def _gray(pixels: Array, dataset: Any) -> Tensor:
    from pydicom.pixels import apply_modality_lut

    padding = dataset.get("PixelPaddingValue")
    seen = pixels != padding if padding is not None else np.ones(pixels.shape, bool)
    values = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError
    unit = _window(values, dataset)
    if unit is None:
        chosen = values[seen] if seen.any() else values
        low, high = float(chosen.min()), float(chosen.max())
        unit = (values - low) / max(high - low, np.finfo(np.float32).tiny)
    unit = unit.clip(0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        unit = 1 - unit
    return torch.from_numpy((unit * 65535).round().astype(np.uint16))[None]


def _window(values: Array, dataset: Any) -> Array | None:
    """Values through the first VOI LUT or window, whose ends become 0 and 1 (PS3.3 C.11.2)."""
    from pydicom.pixels import apply_voi

    if dataset.get("VOILUTSequence"):
        looked_up = np.asarray(apply_voi(values.astype(np.int64), dataset), dtype=np.float32)
        table = np.asarray(dataset.VOILUTSequence[0].LUTDescriptor, dtype=np.int64)
        return np.asarray(looked_up / np.float32(2.0 ** int(table[2]) - 1))
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return None
    center, width = (
        float(np.ravel(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth")
    )
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        unit = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -80, 80)))
    elif function == "LINEAR_EXACT":
        unit = (values - center) / width + 0.5
    else:
        unit = (values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5
    if width <= 0 or not np.isfinite(unit).all():
        raise ValueError
    return np.asarray(unit)


def _refuse_inflating(path: Path) -> None:
    """Refuse a deflated dataset that grows beyond :data:`MAX_INFLATED`, without inflating it."""
    with path.open("rb") as file:
        head = file.read(4096)
        if head[128:132] != b"DICM" or DEFLATED.encode() not in head:
            return
        from pydicom.filereader import _read_file_meta_info

        file.seek(132)
        _read_file_meta_info(file)
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while data := inflater.unconsumed_tail or file.read(2**16):
            size += len(inflater.decompress(data, 2**20))
            if size > MAX_INFLATED:
                raise ImageReadError(
                    f"{path}: the deflated file grows to more than {MAX_INFLATED >> 20} MiB; "
                    f"save it uncompressed if it is an image."
                )
