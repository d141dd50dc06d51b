import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

import pylon_zoo
from pylon_zoo.data import Phantom, Sample
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, UnknownNameError
from pylon_zoo.heatmaps import plot_cam
from pylon_zoo.heatmaps.overlay import GAP, colorize, stack
from pylon_zoo.prediction import predict

#: Height of a line of text at the default size.
LINE = 28


def panels_of(picture: Image.Image, count: int, width: int, height: int) -> list[np.ndarray]:
    pixels = np.asarray(picture).astype(int)
    step = width + GAP
    return [pixels[LINE : LINE + height, i * step : i * step + width] for i in range(count)]


def test_no_heat_leaves_the_image_as_it_is_and_full_heat_colors_it() -> None:
    image = torch.full((1, 512, 400), 0.5)
    heat = torch.zeros(512, 400)
    heat[300:] = 1.0
    picture = plot_cam(image, heat, opacity=1.0, threshold=None, peaks=[])
    left, right = panels_of(picture, 2, 400, 512)
    assert (left == 128).all()
    assert (right[:300] == 128).all()
    assert (right[300:] == colorize(np.ones((1, 1), np.float32))[0, 0]).all()
    half = plot_cam(image, heat * 0.5, opacity=0.5, threshold=None, peaks=[], colormap="jet")
    expected = 128 * 0.75 + 255 * np.array(colormaps["jet"](0.5)[:3]) * 0.25
    assert np.abs(panels_of(half, 2, 400, 512)[1][300:] - expected).max() <= 1


def test_marks_are_drawn_where_they_are() -> None:
    image, heat = torch.zeros(1, 128, 128), torch.zeros(1, 128, 128)
    boxes = [torch.tensor([[10.0, 30, 50, 60]])]
    picture = plot_cam(image, heat, titles=["x"], peaks=[(100, 20)], boxes=boxes)
    left, right = (panel.sum(axis=2) > 0 for panel in panels_of(picture, 2, 512, 512))
    rows, columns = np.flatnonzero(left.any(1)), np.flatnonzero(left.any(0))
    assert (columns[0], rows[0], columns[-1], rows[-1]) == (40, 120, 199, 239)
    rows, columns = (np.flatnonzero(right[:115].any(axis)) for axis in (1, 0))
    assert abs((columns[0] + columns[-1]) / 2 - 100.5 * 4) <= 1
    assert abs((rows[0] + rows[-1]) / 2 - 20.5 * 4) <= 1


def test_regions_are_outlined_and_boxed_on_any_ground() -> None:
    heat = torch.zeros(64, 64)
    heat[16:32, 8:40] = 0.8
    for ground in (0.0, 1.0):
        image = torch.full((1, 64, 64), ground)
        one, other = (
            panels_of(plot_cam(image, heat, threshold=t, peaks=[]), 2, 512, 512)[1]
            for t in (0.5, None)
        )
        # Without heat the two pictures differ by the marks alone.
        marks = np.abs(one - other).sum(axis=2) > 0
        assert not marks[140:240, 80:300].any()
        rows, columns = np.flatnonzero(marks.any(1)), np.flatnonzero(marks.any(0))
        edges = np.array([rows[0], rows[-1], columns[0], columns[-1]])
        assert np.abs(edges - [128, 256, 64, 320]).max() < 12
        # Seen by lightness alone.
        lightness = one.mean(axis=2)[marks]
        assert np.ptp(lightness) > 200 or (ground == 0 and lightness.max() > 200)
    low = panels_of(plot_cam(image, heat * 0.5, peaks=[]), 2, 512, 512)[1]
    none = panels_of(plot_cam(image, heat * 0.5, peaks=[], threshold=None), 2, 512, 512)[1]
    assert (low == none).all()


def test_the_color_bar_shows_the_colors_of_the_overlay() -> None:
    image, heat = torch.full((1, 64, 64), 128 / 255), torch.ones(64, 64)
    picture = np.asarray(plot_cam(image, heat, threshold=None, peaks=[]))
    bar = picture[LINE, 2 * (512 + GAP)].astype(int)
    assert np.abs(bar - picture[LINE + 256, 512 + GAP + 100]).max() <= 1


def test_a_picture_of_a_model_is_that_of_its_prediction() -> None:
    torch.manual_seed(0)
    model = pylon_zoo.create_model("pylon_regnetx_002", class_names=Phantom.class_names).eval()
    sample = Phantom("test")[3]
    picture = plot_cam(sample.image, model, ["mass", "nodule"], size=128)
    prediction = predict(model, Sample(sample.image, torch.zeros(0)))
    found = {f.class_name: f for f in prediction.findings}
    order = [[f.class_name for f in prediction.findings].index(n) for n in ("mass", "nodule")]
    by_hand = plot_cam(
        sample.image,
        prediction.probability_maps[order],
        titles=[f"{n}  {found[n].probability:.2f}" for n in ("mass", "nodule")],
        peaks=[(found[n].x, found[n].y) for n in ("mass", "nodule")],
        boxes=[torch.zeros(0, 4)] * 2,
        size=128,
    )
    assert picture.tobytes() == by_hand.tobytes()
    # Without names: those that reach the threshold, and always one.
    assert prediction.plot(size=128, threshold=0.0).height > picture.height
    assert prediction.plot(size=128, threshold=1.0).width < picture.width
    with pytest.raises(UnknownNameError, match="Did you mean 'mass'"):
        prediction.plot(["mas"])


def test_a_long_title_is_cut_and_panels_wrap() -> None:
    image, heat = torch.zeros(1, 64, 64), torch.zeros(5, 64, 64)
    picture = plot_cam(image, heat, titles=["word " * 40] * 5, size=64, columns=3)
    assert picture.size == (pytest.approx(3 * 72 + 36, abs=6), 2 * 64 + 3 * 18)
    assert stack([picture, picture], columns=2).size == (2 * picture.width + GAP, picture.height)


def test_bad_maps_and_options() -> None:
    image, heat = torch.zeros(1, 64, 64), torch.zeros(64, 64)
    with pytest.raises(InvalidInputError, match=r"\(1, 32, 32\).*\(64, 64\)"):
        plot_cam(image, torch.zeros(32, 32))
    with pytest.raises(InvalidInputError, match="sigmoid"):
        plot_cam(image, torch.full((64, 64), 3.0))
    with pytest.raises(InvalidInputError, match="sigmoid"):
        plot_cam(image, heat * torch.nan)
    with pytest.raises(InvalidInputError, match="1 maps and 2 titles"):
        plot_cam(image, heat, titles=["a", "b"])
    with pytest.raises(InvalidInputError, match="gray or RGB"):
        plot_cam(torch.zeros(2, 64, 64), heat)
    with pytest.raises(InvalidOptionError, match="opacity 2"):
        plot_cam(image, heat, opacity=2)
    with pytest.raises(InvalidOptionError, match="give titles"):
        plot_cam(image, heat, ["mass"])
    with pytest.raises(UnknownNameError, match="Did you mean 'viridis'"):
        plot_cam(image, heat, colormap="virids")
