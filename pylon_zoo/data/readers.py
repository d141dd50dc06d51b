"""From a file to pixels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pylon_zoo.data.dicom import DICOM_SUFFIXES, count_dicom_frames, is_dicom, read_dicom
from pylon_zoo.errors import ImageReadError, MissingExtraError, PylonZooError

__all__ = ["IMAGE_SUFFIXES", "count_frames", "find_images", "image_to_tensor", "read_image"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", *DICOM_SUFFIXES)
#: What Pillow may try; some of its other formats start programs to decode a file.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
#: A larger image is more likely a decompression bomb than a radiograph.
MAX_PIXELS = 2**28


def read_image(
    path: str | os.PathLike[str], frame: int = 0, *, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Read an image file: PNG, JPEG, TIFF, BMP, or DICOM (extra ``dicom``).

    What a file is, its content decides; a DICOM file without its preamble is known by its suffix.

    Args:
        path: the file.
        frame: index from 0 in a DICOM or TIFF file of several images.
        max_pixels: a larger image is refused before it is decoded.

    Returns:
        (C, H, W): uint8, or uint16 for a 16-bit gray or DICOM file; C is 1 (gray) or 3 (RGB).
        Values lie over the whole range of the type: 16-bit files are taken as they are (one that
        uses only 12 of its bits is nearly black, which :func:`pylon_zoo.create_transform` warns
        of), DICOM values are windowed (:func:`pylon_zoo.data.dicom.read_dicom`). Transparency is
        put on black, EXIF rotation is applied.

    Raises:
        ImageReadError: the file is missing, damaged, too large or no image, or has no such frame;
            names the file.
        MissingExtraError: it is a DICOM file and pydicom is not installed.
    """
    path = Path(path)
    try:
        if is_dicom(path):
            return read_dicom(path, frame, max_pixels=max_pixels)
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageReadError(
                    f"{path}: {image.width} x {image.height} px is more than the {max_pixels} px "
                    f"that are read; reduce the image first."
                )
            if frame:
                image.seek(frame)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image_to_tensor(image)
    except PylonZooError:
        raise
    except FileNotFoundError:
        raise ImageReadError(f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise ImageReadError(f"{path} is a folder; give an image file.") from None
    except EOFError:
        raise ImageReadError(f"{path} has no frame {frame}, counted from 0.") from None
    except UnidentifiedImageError:
        raise ImageReadError(
            f"{path} is no image that can be read; accepted are {', '.join(IMAGE_SUFFIXES)}."
        ) from None
    except Exception as error:
        # Pillow reports a damaged file by OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageReadError(f"{path}: the image is damaged or truncated ({error}).") from error


def image_to_tensor(image: Image.Image) -> Tensor:
    """Pixels of an opened image, as :func:`read_image` returns them."""
    if image.mode.startswith("I;16"):
        return torch.from_numpy(np.array(image, dtype=np.uint16))[None]
    if image.mode in ("I", "F"):
        # Pillow opens 16-bit gray PNG in mode "I" in some versions; other ranges are unknown.
        pixels = np.array(image)
        if image.mode == "I" and pixels.min() >= 0 and pixels.max() <= 65535:
            return torch.from_numpy(pixels.astype(np.uint16))[None]
        raise ValueError(f"32-bit pixels of unknown range (mode {image.mode})")
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "L":
        return torch.from_numpy(np.array(image))[None]
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def count_frames(path: str | os.PathLike[str]) -> int:
    """Images in a DICOM or TIFF file; 1 for any other, and for a file that cannot be read.

    Raises:
        MissingExtraError: it is a DICOM file and pydicom is not installed.
    """
    path = Path(path)
    try:
        if is_dicom(path):
            return count_dicom_frames(path)
        with Image.open(path, formats=FORMATS) as image:
            return int(getattr(image, "n_frames", 1))
    except MissingExtraError:
        raise
    except Exception:
        # read_image says what is wrong with it.
        return 1


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """All image files below a folder, sorted by path: those with a suffix of images, and DICOM
    files of any name but for the index ``DICOMDIR``.

    Raises:
        ImageReadError: there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageReadError(f"{folder}: there is no such folder.")
    paths = sorted(p for p in folder.rglob("*") if _may_be_image(p))
    if not paths:
        raise ImageReadError(
            f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}, or DICOM of any name)."
        )
    return paths


def _may_be_image(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        return path.is_file() and path.name != "DICOMDIR" and is_dicom(path)
    except OSError:
        return False
