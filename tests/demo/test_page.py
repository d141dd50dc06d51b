"""The page as people meet it: served by the command, in headless Chromium."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import pylon_zoo
from pylon_zoo.data import Phantom

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROOT = Path(__file__).resolve().parents[2]

for package in ("gradio", "playwright"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
if BROWSER is None:
    pytest.skip("there is no chromium on the PATH", allow_module_level=True)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, uploads: Path) -> Iterator[str]:
    """Of a server; when it is stopped, it must have left no file and said nothing of any."""
    torch.manual_seed(0)
    model = pylon_zoo.create_model("cam_regnetx_002", class_names=("left", "right"))
    folder = pylon_zoo.save_pretrained(model, tmp_path_factory.mktemp("own") / "my_model")
    server = subprocess.Popen(
        [sys.executable, "-m", "pylon_zoo.cli.main", "demo", str(folder), "--no-browser"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(uploads)},
    )
    try:
        assert server.stderr
        line = server.stderr.readline()
        assert line.startswith("http://127.0.0.1:"), line + server.stderr.read()
        yield line.split()[0]
    finally:
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=60)[1]
    assert server.returncode == 0
    assert said == ""
    assert not list(uploads.rglob("*"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield chromium
        chromium.close()


def image_file(folder: Path, number: int) -> Path:
    path = folder / f"scan_{number}.png"
    Image.fromarray(Phantom("test", size=320)[number].image[0].numpy()).save(path)
    return path


def opened(browser: Any, address: str, width: int = 1280) -> Any:
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.goto(address)
    page.get_by_label("Checkpoint").click()
    page.get_by_role("option", name="pylon_dla46_c.phantom").click()
    return page


def saved(page: Any, link: str) -> Path:
    with page.expect_download() as download:
        page.get_by_text(link).click()
    return Path(download.value.path())


def test_upload_overlay_download(browser: Any, address: str, uploads: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    page = opened(browser, address, width=390)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.reload()
    page.get_by_label("Checkpoint").click()
    page.get_by_role("option", name="pylon_dla46_c.phantom").click()
    page.locator("input[type=file]").set_input_files(
        [image_file(tmp_path, 3), image_file(tmp_path, 4)]
    )
    page.locator("img.pz-picture").wait_for()
    page.get_by_text("Save JSON").scroll_into_view_if_needed()
    expect(page.get_by_text("Not for clinical use.")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    model = pylon_zoo.load_pretrained("pylon_dla46_c.phantom")
    pixels = pylon_zoo.read_image(tmp_path / "scan_3.png")
    transform = pylon_zoo.create_transform(model)
    with torch.no_grad():
        expected = model(transform(pixels)[None]).logits.sigmoid()[0].tolist()
    report = json.loads(saved(page, "Save JSON").read_text())
    assert [i["image"] for i in report["images"]] == ["scan_3.png", "scan_4.png"]
    found = {f["class_name"]: f["probability"] for f in report["images"][0]["findings"]}
    for name, probability in zip(Phantom.class_names, expected, strict=True):
        assert found[name] == pytest.approx(probability, abs=1e-4)

    before = saved(page, "Save PNG").read_bytes()
    source = page.locator("img.pz-picture").get_attribute("src")
    page.get_by_label("number input for Opacity").fill("0")
    page.get_by_label("number input for Opacity").press("Enter")
    page.wait_for_function(
        "old => document.querySelector('img.pz-picture').src !== old", arg=source
    )
    after = saved(page, "Save PNG")
    assert after.read_bytes() != before
    with Image.open(after) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 700
    assert requests
    assert all(url.startswith((address, "data:", "blob:")) for url in requests)
    assert not [p for p in uploads.rglob("*") if p.is_file() and p.stat().st_size]


def test_a_bad_file_gets_a_message(browser: Any, address: str, tmp_path: Path) -> None:
    page = opened(browser, address)
    (tmp_path / "letter.png").write_text("no image", encoding="utf-8")
    page.locator("input[type=file]").set_input_files(
        [tmp_path / "letter.png", image_file(tmp_path, 5)]
    )
    page.locator("img.pz-picture").wait_for()
    message = page.locator(".pz-problem")
    assert message.inner_text().startswith("letter.png is no image that can be read")
    assert "Traceback" not in page.content()


def test_two_users_see_their_own(browser: Any, address: str, tmp_path: Path) -> None:
    pages = [opened(browser, address) for _ in range(2)]
    pages[1].get_by_label("Checkpoint").click()
    pages[1].get_by_role("option", name="my_model").click()
    for number, page in enumerate(pages):
        page.locator("input[type=file]").set_input_files(image_file(tmp_path, number))
    for number, page in enumerate(pages):
        page.locator("img.pz-picture").wait_for()
        report = json.loads(saved(page, "Save JSON").read_text())
        assert [i["image"] for i in report["images"]] == [f"scan_{number}.png"]
        assert Path(report["model"]).name == ("pylon_dla46_c.phantom", "my_model")[number]
