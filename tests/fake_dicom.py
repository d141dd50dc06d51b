"""Small DICOM files, written value by value."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

#: In every header; must be seen nowhere else.
PATIENT = "Doe^Secret"


def dataset(
    pixels: np.ndarray,
    *,
    bits: int | None = None,
    photometric: str = "MONOCHROME2",
    syntax: UID = ExplicitVRLittleEndian,
    **elements: Any,
) -> Dataset:
    """A data set of (H, W), (H, W, 3) or, with NumberOfFrames, (F, H, W) pixels."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.SOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID
    made.PatientName = made.PatientID = PATIENT
    color = pixels.shape[-1] == 3
    made.SamplesPerPixel = 3 if color else 1
    if color:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric
    made.Rows, made.Columns = pixels.shape[-3:-1] if color else pixels.shape[-2:]
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def write(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    dataset(pixels, **options).save_as(path, enforce_file_format=True)
    return path
