import pytest
import torch

import pylon_zoo
from pylon_zoo.data import Phantom, Sample
from pylon_zoo.heatmaps import find_peaks
from pylon_zoo.prediction import predict


@pytest.fixture(scope="module")
def model() -> pylon_zoo.LocalizationModel:
    torch.manual_seed(0)
    return pylon_zoo.create_model("pylon_regnetx_002", class_names=Phantom.class_names).eval()


def test_findings_agree_with_the_model_and_the_boxes(model: pylon_zoo.LocalizationModel) -> None:
    sample = Phantom("test", size=320)[3]
    prediction = predict(model, sample)
    image = pylon_zoo.create_transform(model)(sample).image[None]
    with torch.no_grad():
        logits = model(image).logits[0]
    cam = pylon_zoo.get_cam(model, image, size=(320, 320))
    peaks = find_peaks(cam).xy[0]
    assert sorted(prediction.classes) == list(range(6))
    probabilities = [f.probability for f in prediction.findings]
    assert probabilities == sorted(probabilities, reverse=True)
    for position, k in enumerate(prediction.classes):
        finding = prediction.findings[position]
        assert finding.class_name == Phantom.class_names[k]
        assert finding.probability == pytest.approx(float(logits[k].sigmoid()))
        assert [finding.x, finding.y] == peaks[k].tolist()
        assert torch.allclose(prediction.probability_maps[position], cam[0, k].sigmoid())
        boxes = sample.boxes[sample.box_classes == k]
        assert torch.equal(prediction.boxes_of(position), boxes)
        inside = [
            x0 <= finding.x <= x1 and y0 <= finding.y <= y1 for x0, y0, x1, y1 in boxes.tolist()
        ]
        assert finding.inside is (any(inside) if inside else None)


def test_an_image_of_any_aspect_without_boxes(model: pylon_zoo.LocalizationModel) -> None:
    sample = Sample(image=torch.zeros(3, 90, 300, dtype=torch.uint8), labels=torch.zeros(0))
    prediction = predict(model, sample, alignment="receptive_field")
    assert prediction.probability_maps.shape == (6, 90, 300)
    assert all(f.inside is None and 0 <= f.x < 300 and 0 <= f.y < 90 for f in prediction.findings)
