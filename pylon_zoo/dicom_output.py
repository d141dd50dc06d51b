"""Heatmaps back into the clinic's tools, as DICOM (extra ``dicom``).

The one output of this package that holds identifiers: what is written here belongs to the study of
its source, and carries that study's patient, dates, accession number and UIDs. Nothing in the
package calls it unless it is asked for by name. Research only: not for clinical use.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pylon_zoo
from pylon_zoo.errors import (
    ImageReadError,
    InvalidInputError,
    MissingExtraError,
    PylonZooError,
    unknown_name,
)
from pylon_zoo.weights.files import replace_file

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pylon_zoo.prediction import Prediction

__all__ = ["KINDS", "write_findings", "write_secondary_capture", "write_segmentation"]

KINDS = ("sc", "seg")

NOTICE = "Research output of pylon_zoo. Not for clinical use."
#: Whose codes the class names are, where no terminology knows them (PS3.3 section 8).
CODING_SCHEME = "99PYLONZOO"
#: What neither object can do without.
REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
#: What must be there but may be empty (type 2).
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


def write_secondary_capture(
    picture: Image.Image,
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    description: str = "Class maps",
) -> Path:
    """Write a picture as a DICOM Secondary Capture into the study of its source.

    Args:
        picture: e.g. of :func:`pylon_zoo.plot_cam`; stored pixel by pixel as 8-bit RGB.
        source: the DICOM file that the picture was made from. Its patient and study identifiers
            are copied, and it is referenced as the source image.
        path: the file to write; its folder must exist.
        description: of the new series; that it is not for clinical use is added.

    Returns:
        ``path``.

    Raises:
        ImageReadError: there is no such source.
        InvalidInputError: the source is no DICOM file of a study.
        MissingExtraError: highdicom is not installed.
    """
    require_highdicom()
    return _write(Path(source), Path(path), lambda s: _capture(s, picture, description))


def write_segmentation(
    maps: Tensor,
    class_names: Sequence[str],
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    threshold: float = 0.5,
    frame: int = 0,
    model: str = "pylon_zoo",
) -> Path:
    """Write thresholded class maps as a binary DICOM Segmentation on the source's own pixel grid.

    Args:
        maps: (K, H, W) in pixels of the source, e.g. ``Prediction.probability_maps``.
        class_names: of the K maps; a class is a segment, in this order, from number 1.
        source: the DICOM file that was predicted. Its patient and study identifiers are copied,
            and it is referenced by every frame.
        path: the file to write; its folder must exist.
        threshold: a pixel belongs to a segment where its value is at least this.
        frame: index from 0 of the frame that was predicted.
        model: its name, kept as the algorithm's.

    Returns:
        ``path``.

    Raises:
        ImageReadError: there is no such source.
        InvalidInputError: maps, names and source do not fit each other.
        MissingExtraError: highdicom is not installed.
    """
    require_highdicom()
    if maps.ndim != 3 or not len(maps) or len(class_names) != len(maps):
        raise InvalidInputError(
            f"Maps are (K, H, W) with K names; got shape {tuple(maps.shape)} and "
            f"{len(class_names)} names."
        )
    masks = np.asarray(maps.detach().cpu() >= threshold)
    return _write(
        Path(source), Path(path), lambda s: _segmentation(s, masks, class_names, frame, model)
    )


def write_findings(
    prediction: Prediction,
    kind: str,
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    threshold: float = 0.5,
    frame: int = 0,
    model: str = "pylon_zoo",
) -> Path:
    """Write the findings of an image that reach a threshold, or else the most probable one.

    Args:
        prediction: of the source.
        kind: ``"sc"`` for a picture (:func:`write_secondary_capture`), ``"seg"`` for masks
            (:func:`write_segmentation`).
        source: the DICOM file.
        path: the file to write.
        threshold: least probability of a finding, and of the pixels of its region.
        frame: index from 0 of the frame that was predicted.
        model: its name.

    Raises:
        UnknownNameError: no such kind.
        PylonZooError: see there.
    """
    if kind not in KINDS:
        raise unknown_name("kind of DICOM output", kind, KINDS)
    found = [f.class_name for f in prediction.findings if f.probability >= threshold]
    names = found or [prediction.findings[0].class_name]
    if kind == "sc":
        picture = prediction.plot(names, threshold=threshold)
        return write_secondary_capture(picture, source, path, description=", ".join(names))
    # They come by falling probability.
    maps = prediction.probability_maps[: len(names)]
    return write_segmentation(
        maps, names, source, path, threshold=threshold, frame=frame, model=model
    )


def require_highdicom() -> None:
    """Raise :class:`MissingExtraError` unless highdicom is installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("highdicom", "dicom", "Writing DICOM") from error


def _write(source: Path, path: Path, make: Callable[[Any], Any]) -> Path:
    from pydicom import dcmread

    # As in data.dicom: messages about a header may quote it, and so are not passed on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = dcmread(source, stop_before_pixels=True)
            if missing := [name for name in REQUIRED if not header.get(name)]:
                raise InvalidInputError(
                    f"{source} belongs to no study: it lacks {', '.join(missing)}."
                )
            for name in MAY_BE_EMPTY:
                if name not in header:
                    setattr(header, name, "")
            made = make(header)
            with replace_file(path) as temporary:
                made.save_as(temporary)
        except PylonZooError:
            raise
        except FileNotFoundError:
            raise ImageReadError(f"{source}: there is no such file.") from None
        except Exception as error:
            raise InvalidInputError(
                f"{source} cannot be the source of a DICOM object: its header is damaged or of a "
                f"kind that is not supported ({type(error).__name__})."
            ) from None
    return path


def _capture(source: Any, picture: Image.Image, description: str) -> Any:
    from highdicom import UID
    from highdicom.sc import SCImage
    from pydicom.dataset import Dataset

    made = SCImage.from_ref_dataset(
        source,
        np.asarray(picture.convert("RGB")),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        series_instance_uid=UID(),
        series_number=_series_number(source),
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="pylon_zoo",
    )
    # Panels beside each other have no one orientation; empty says unknown.
    made.PatientOrientation = ""
    made.Laterality = source.get("Laterality", "")
    note = " (not for clinical use)"
    made.SeriesDescription = description[: 64 - len(note)] + note
    made.ImageComments = NOTICE
    made.BurnedInAnnotation = "NO"
    made.SoftwareVersions = pylon_zoo.__version__
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    made.SourceImageSequence = [reference]
    made.DerivationDescription = "Class maps of an image classifier laid over the source image"
    return made


def _segmentation(
    source: Any, masks: Any, class_names: Sequence[str], frame: int, model: str
) -> Any:
    from highdicom import UID, AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    if masks.shape[1:] != (source.Rows, source.Columns):
        raise InvalidInputError(
            f"The maps are {masks.shape[1:]} and the source {(source.Rows, source.Columns)} "
            f"(height, width); get_cam(..., size=(height, width)) makes maps that fit."
        )
    frames = int(source.get("NumberOfFrames") or 1)
    if not 0 <= frame < frames:
        raise InvalidInputError(f"The source has {frames} frame(s); there is no {frame} from 0.")
    placed = "PerFrameFunctionalGroupsSequence" in source
    if not placed:
        # Frames without a place of their own: highdicom takes one alone, named again below.
        source.NumberOfFrames = 1
    pixels = np.zeros((frames if placed else 1, *masks.shape[1:], len(masks)), bool)
    pixels[frame if placed else 0] = masks.transpose(1, 2, 0)
    algorithm = AlgorithmIdentificationSequence(
        model, codes.DCM.ArtificialIntelligence, pylon_zoo.__version__, source="pylon_zoo"
    )
    segments = [
        SegmentDescription(
            number,
            name[:64],
            # Where a classifier sees a class is a place, not an organ or a lesion.
            segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
            segmented_property_type=CodedConcept(f"CLASS{number}", CODING_SCHEME, name[:64]),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(class_names, start=1)
    ]
    made = Segmentation(
        [source],
        pixels,
        "BINARY",
        segments,
        series_instance_uid=UID(),
        series_number=_series_number(source),
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="pylon_zoo",
        manufacturer_model_name=model[:64],
        software_versions=pylon_zoo.__version__,
        device_serial_number="none",
        content_label="CLASS_MAPS",
        content_description=NOTICE,
        # Of one frame also an empty mask is written, so that every segment has its frame.
        omit_empty_frames=len(pixels) > 1,
        series_description="Thresholded class maps (not for clinical use)",
    )
    if "FrameOfReferenceUID" not in made:
        made.PatientOrientation = source.get("PatientOrientation", "")
    if frames > len(pixels):
        for group in made.PerFrameFunctionalGroupsSequence:
            for image in group.DerivationImageSequence[0].SourceImageSequence:
                image.ReferencedFrameNumber = frame + 1
    return made


def _series_number(source: Any) -> int:
    """A number that the study's other series are unlikely to have."""
    return 9000 + int(source.get("SeriesNumber") or 0) % 1000
