import base64
import io
import json
import re
from pathlib import Path

import fake_dicom
import numpy as np
import pytest
import torch
from PIL import Image

import pylon_zoo
from pylon_zoo.data import Phantom, Sample
from pylon_zoo.demo import session
from pylon_zoo.metrics.boxes import component_boxes
from pylon_zoo.prediction import predict


@pytest.fixture(scope="module")
def model() -> pylon_zoo.LocalizationModel:
    return pylon_zoo.load_pretrained("pylon_dla46_c.phantom")


def test_files_are_read_and_deleted_whatever_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    good, bad, wide = (tmp_path / f"{n}.png" for n in ("good", "bad", "wide"))
    Image.fromarray(pixels).save(good)
    bad.write_bytes(b"<b>no image</b>")
    Image.new("1", (2**13, 2**12)).save(wide)
    dicom = fake_dicom.write(tmp_path / "scan.dcm", pixels)
    paths = [good, bad, wide, dicom]
    samples, problems = session.read_files([str(p) for p in paths])
    assert [s.source for s in samples] == ["good.png", "scan.dcm"]
    assert torch.equal(samples[0].image[0], torch.from_numpy(pixels))
    assert [p.split()[0].rstrip(":") for p in problems] == ["bad.png", "wide.png"]
    assert "16777216 px" in problems[1]
    assert str(tmp_path) not in " ".join(problems)
    assert fake_dicom.PATIENT not in str(samples)
    assert not any(path.exists() for path in paths)


def test_uploads_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(session.MAX_FILES + 2)]
    for path in paths:
        Image.new("L", (64, 64)).save(path)
    monkeypatch.setattr(session, "MAX_BYTES", paths[0].stat().st_size)
    paths[1].write_bytes(paths[1].read_bytes() + b"\0")
    samples, problems = session.read_files([str(p) for p in paths])
    assert len(samples) == session.MAX_FILES - 1
    assert re.match(rf"{session.MAX_FILES + 2} files", problems[0])
    assert problems[1].startswith("1.png: more than")
    assert not any(path.exists() for path in paths)


def test_results_are_those_of_predict_in_pixels_of_the_image(
    model: pylon_zoo.LocalizationModel,
) -> None:
    phantom = Phantom("test", size=1024)[3]
    sample = Sample(phantom.image[:, :900], phantom.labels[:0], source="<scan>.png")
    results, problems = session.predict_samples(model, [sample, session.take_phantom()])
    assert not problems
    expected = predict(model, sample)
    assert results[0].findings == expected.findings
    content = json.loads(session.report(results, "name", 0.4))
    assert (content["model"], content["threshold"]) == ("name", 0.4)
    assert "ot for clinical use" in content["notice"]
    first = content["images"][0]
    assert (first["image"], first["width"], first["height"]) == ("<scan>.png", 1024, 900)
    for position, finding in enumerate(first["findings"]):
        assert {k: finding[k] for k in ("class_name", "x", "y")} == {
            k: getattr(expected.findings[position], k) for k in ("class_name", "x", "y")
        }
        boxes = component_boxes(expected.probability_maps[position][None].numpy() >= 0.4).boxes
        if finding["probability"] > 0.9:
            # Computed from the map that the page shows, which is smaller.
            largest = [max(b, key=lambda v: v[2] - v[0]) for b in (finding["boxes"], boxes)]
            assert np.abs(np.array(largest[0]) - largest[1]).max() <= 4


def test_the_picture_of_a_class(model: pylon_zoo.LocalizationModel) -> None:
    (result,), _ = session.predict_samples(model, [Phantom("test")[3]])
    name = result.findings[0].class_name
    pictures = [
        np.asarray(session.picture(result, name, opacity, threshold)).astype(int)
        for opacity, threshold in ((0, 0.5), (0.65, 0.5), (0.65, 0.9))
    ]
    assert np.abs(pictures[0] - pictures[1]).max() > 50
    assert np.abs(pictures[1] - pictures[2]).max() > 50
    html = session.picture_html(result, name, 0.65, 0.5)
    url = re.search(r'href="data:image/png;base64,([^"]+)"', html)
    assert url
    saved = Image.open(io.BytesIO(base64.b64decode(url[1])))
    assert np.array_equal(np.asarray(saved), pictures[1])


def test_names_are_text_not_markup(model: pylon_zoo.LocalizationModel) -> None:
    sample = Sample(torch.zeros(1, 64, 64), torch.zeros(0), source='"><script>.png')
    (result,), _ = session.predict_samples(model, [sample])
    html = session.picture_html(result, "mass", 0.5, 0.5) + session.problems_html(["<b>"])
    assert "<script>" not in html
    assert "<b>" not in html


def test_true_boxes_are_not_taken_for_another_models_classes() -> None:
    torch.manual_seed(0)
    other = pylon_zoo.create_model("pylon_regnetx_002", class_names=("a", "b"), in_chans=3).eval()
    sample = next(s for s in map(Phantom("test").__getitem__, range(9)) if len(s.boxes))
    (result,), _ = session.predict_samples(other, [sample])
    assert not len(result.view.sample.boxes)
    assert len(result.sample.boxes)  # kept for a model that knows them


def test_images_too_large_for_a_model_that_does_not_resize() -> None:
    model = session.load_models([])["pylon_dla46_c.bccd"]
    large = Sample(torch.zeros(3, 2000, 1200), torch.zeros(0), source="large.png")
    results, (problem,) = session.predict_samples(model, [large])
    assert not results
    assert problem.startswith("large.png: 1200 x 2000 px")


def test_every_example_shows_something() -> None:
    for _ in range(20):
        sample = session.take_phantom()
        assert len(sample.boxes)
        number = int(sample.source.removeprefix("phantom "))
        assert torch.equal(sample.image, Phantom("test")[number].image)
