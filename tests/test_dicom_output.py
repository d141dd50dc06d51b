import warnings
from pathlib import Path

import fake_dicom
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage, generate_uid

import pylon_zoo
from pylon_zoo.cli import main as cli
from pylon_zoo.data import Sample
from pylon_zoo.dicom_output import write_secondary_capture, write_segmentation
from pylon_zoo.errors import ImageReadError, InvalidInputError
from pylon_zoo.prediction import predict

pytest.importorskip("highdicom")

#: The study that an output must belong to.
STUDY = {
    "PatientName": "Doe^Jane",
    "PatientID": "P-17",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.2",
    "StudyDate": "20200304",
    "StudyTime": "050607",
    "StudyID": "S5",
    "AccessionNumber": "A6",
    "ReferringPhysicianName": "Roe^Rick",
}


@pytest.fixture
def radiograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 4096, (50, 70), dtype=np.uint16)
    return fake_dicom.write(tmp_path / "radiograph.dcm", pixels, bits=12, **STUDY)


def of_the_study(made: Dataset, source: Dataset) -> None:
    for name in STUDY:
        if name != "SeriesInstanceUID":
            assert made.get(name, "") == source.get(name, ""), name
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert made.SOPInstanceUID not in (source.SOPInstanceUID, source.SeriesInstanceUID)
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert "not for clinical use" in made.SeriesDescription.lower()


def test_a_secondary_capture_holds_the_picture_and_names_its_source(
    radiograph: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (33, 91, 3), dtype=np.uint8)
    path = write_secondary_capture(
        Image.fromarray(pixels), radiograph, tmp_path / "sc.dcm", description="mass"
    )
    made, source = dcmread(path), dcmread(radiograph)
    assert made.SOPClassUID == SecondaryCaptureImageStorage
    assert (made.Rows, made.Columns, made.PhotometricInterpretation) == (33, 91, "RGB")
    assert np.array_equal(made.pixel_array, pixels)
    of_the_study(made, source)
    assert made.SeriesDescription.startswith("mass")
    (reference,) = made.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    again = dcmread(write_secondary_capture(Image.fromarray(pixels), radiograph, path))
    assert again.SOPInstanceUID != made.SOPInstanceUID


def masks_of(made: Dataset) -> dict[str, np.ndarray]:
    """Each segment's mask from the file alone."""
    frames = made.pixel_array.reshape(-1, made.Rows, made.Columns)
    labels = {s.SegmentNumber: s.SegmentLabel for s in made.SegmentSequence}
    # What all frames share is written once.
    (shared,) = made.SharedFunctionalGroupsSequence
    return {
        labels[
            (item if "SegmentIdentificationSequence" in item else shared)
            .SegmentIdentificationSequence[0]
            .ReferencedSegmentNumber
        ]: frame.astype(bool)
        for frame, item in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True)
    }


@pytest.mark.parametrize("kind", ["radiograph", "ct", "mr", "color"])
def test_segmentations_map_back_onto_the_source(
    kind: str, radiograph: Path, tmp_path: Path
) -> None:
    names = {"ct": "CT_small.dcm", "mr": "MR_small_jpeg_ls_lossless.dcm", "color": "SC_rgb_rle.dcm"}
    source_path = Path(get_testdata_file(names[kind])) if kind in names else radiograph
    source = dcmread(source_path)
    maps = torch.rand(3, source.Rows, source.Columns, generator=torch.Generator().manual_seed(0))
    maps[2] = 0.25  # nothing reaches the threshold
    maps[0, 0, 0] = 0.5
    path = write_segmentation(
        maps, ["mass", "effusion", "none"], source_path, tmp_path / "seg.dcm", model="pylon_x.y"
    )
    made = dcmread(path)
    assert made.SOPClassUID == SegmentationStorage
    assert made.SegmentationType == "BINARY"
    assert (made.Rows, made.Columns) == (source.Rows, source.Columns)
    masks = masks_of(made)
    assert list(masks) == ["mass", "effusion", "none"]
    for values, mask in zip(maps, masks.values(), strict=True):
        assert np.array_equal(mask, values.numpy() >= 0.5)
    assert masks["mass"][0, 0]
    assert not masks["none"].any()
    of_the_study(made, source)
    assert made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == (
        "pylon_x.y"
    )
    for item in made.PerFrameFunctionalGroupsSequence:
        image = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    referenced = made.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    if kind in ("ct", "mr"):
        assert made.FrameOfReferenceUID == source.FrameOfReferenceUID
        position = made.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
        assert position.ImagePositionPatient == source.ImagePositionPatient


def enhanced_ct(path: Path) -> Path:
    """Three slices in one file, each with its place."""
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    slices = []
    for number in range(3):
        image = dcmread(get_testdata_file("CT_small.dcm"))
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.ImagePositionPatient[2] += 5 * number
        image.InstanceNumber = number + 1
        slices.append(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LegacyConvertedEnhancedCTImage(
            slices, generate_uid(), 7, generate_uid(), instance_number=1
        ).save_as(path)
    return path


@pytest.mark.parametrize("enhanced", [False, True])
def test_a_frame_of_several(enhanced: bool, tmp_path: Path) -> None:
    source = tmp_path / "loop.dcm"
    if enhanced:
        enhanced_ct(source)
    else:
        pixels = np.zeros((3, 20, 30), np.uint8)
        fake_dicom.write(source, pixels, NumberOfFrames=3, **STUDY)
    header = dcmread(source)
    maps = torch.zeros(1, header.Rows, header.Columns)
    maps[0, 4:9, 5:7] = 1
    path = write_segmentation(maps, ["mass"], source, tmp_path / "seg.dcm", frame=1)
    made = dcmread(path)
    assert np.array_equal(masks_of(made)["mass"], maps[0].bool().numpy())
    (item,) = made.PerFrameFunctionalGroupsSequence
    image = item.DerivationImageSequence[0].SourceImageSequence[0]
    assert image.ReferencedFrameNumber == 2  # DICOM counts from 1
    assert image.ReferencedSOPInstanceUID == header.SOPInstanceUID
    if enhanced:
        places = [
            group.PlanePositionSequence[0].ImagePositionPatient
            for group in (
                header.PerFrameFunctionalGroupsSequence[1],
                item if "PlanePositionSequence" in item else made.SharedFunctionalGroupsSequence[0],
            )
        ]
        assert places[0] == places[1]
    with pytest.raises(InvalidInputError, match=r"3 frame\(s\).*no 3"):
        write_segmentation(maps, ["mass"], source, path, frame=3)


def test_sources_without_identifiers(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30), np.uint8)
    no_study = fake_dicom.write(tmp_path / "a.dcm", pixels)
    with pytest.raises(InvalidInputError, match="lacks StudyInstanceUID, SeriesInstanceUID"):
        write_segmentation(torch.zeros(1, 20, 30), ["mass"], no_study, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()
    anonymous = fake_dicom.write(
        tmp_path / "b.dcm", pixels, StudyInstanceUID=generate_uid(), SeriesInstanceUID="1.2.3"
    )
    for path in (
        write_segmentation(torch.zeros(1, 20, 30), ["mass"], anonymous, tmp_path / "seg.dcm"),
        write_secondary_capture(Image.new("RGB", (9, 9)), anonymous, tmp_path / "sc.dcm"),
    ):
        assert dcmread(path).StudyInstanceUID == dcmread(anonymous).StudyInstanceUID
        assert dcmread(path).AccessionNumber == ""


def test_what_does_not_fit(radiograph: Path, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    with pytest.raises(InvalidInputError, match=r"\(64, 64\).*\(50, 70\)"):
        write_segmentation(torch.zeros(1, 64, 64), ["mass"], radiograph, path)
    with pytest.raises(InvalidInputError, match="2 names"):
        write_segmentation(torch.zeros(1, 50, 70), ["mass", "nodule"], radiograph, path)
    with pytest.raises(ImageReadError, match="no such file"):
        write_segmentation(torch.zeros(1, 50, 70), ["mass"], tmp_path / "none.dcm", path)
    garbage = tmp_path / "x.dcm"
    garbage.write_bytes(b"no dicom")
    with pytest.raises(InvalidInputError, match=r"x\.dcm"):
        write_secondary_capture(Image.new("RGB", (9, 9)), garbage, path)
    bad = fake_dicom.write(tmp_path / "bad.dcm", np.zeros((50, 70), np.uint8), **STUDY)
    data = bad.read_bytes().replace(b"19700102", b"Secret!!")
    bad.write_bytes(data)
    try:
        write_secondary_capture(Image.new("RGB", (9, 9)), bad, path)
    except InvalidInputError as error:
        assert "Secret" not in str(error)  # noqa: PT017 - either is fine, but for this


def test_predict_writes_dicom_only_when_asked(
    radiograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*options: str) -> int:
        arguments = ["predict", str(radiograph), "-o", str(tmp_path / "out"), *options]
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        return int(stopped.value.code or 0)

    assert run() == 0
    assert not list((tmp_path / "out").glob("*.dcm"))
    others = b"".join(p.read_bytes() for p in (tmp_path / "out").iterdir())
    assert not any(value.encode() in others for value in STUDY.values() if len(value) > 3)

    assert run("--dicom", "seg", "--threshold", "0.02") == 0
    made = dcmread(tmp_path / "out" / "radiograph_seg.dcm")
    model = pylon_zoo.load_pretrained("pylon_dla46_c.phantom")
    image = pylon_zoo.read_image(radiograph)
    prediction = predict(model, Sample(image, torch.zeros(0)))
    found = [f for f in prediction.findings if f.probability >= 0.02]
    assert len(found) > 1
    for maps, (name, mask), finding in zip(
        prediction.probability_maps, masks_of(made).items(), found, strict=False
    ):
        assert name == finding.class_name
        assert np.array_equal(mask, maps.numpy() >= 0.02)
    of_the_study(made, dcmread(radiograph))

    assert run("--dicom", "sc") == 0
    picture = np.asarray(prediction.plot())
    assert np.array_equal(dcmread(tmp_path / "out" / "radiograph_sc.dcm").pixel_array, picture)

    capsys.readouterr()
    assert run("--dicom", "pdf") == 2
    radiograph = tmp_path / "plain.png"
    Image.new("L", (64, 64)).save(radiograph)
    assert run("--dicom", "sc") == 1
    said = capsys.readouterr().err
    assert "plain.png cannot be the source of a DICOM object" in said
