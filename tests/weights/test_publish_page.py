"""docs/how-to/publish.md, word for word, with a Hub on this machine."""

from pathlib import Path

import pytest
from hub_server import HubServer
from pages import ROOT, run_page, small_work
from PIL import Image

from pylon_zoo.data import Phantom


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.usefixtures("manifest_file")
def test_code_blocks_run(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Image.fromarray(Phantom("test")[4].image[0].numpy()).save("chest.png")
    with small_work(monkeypatch):
        run_page(ROOT / "docs" / "how-to" / "publish.md")
    assert {"my-name/my-model", "my-name/recorded"} <= set(hub.repos)
    files = hub.commits[hub.repos["my-name/recorded"]["main"]]
    assert files["heatmap.png"] == Path("recorded/heatmap.png").read_bytes()
    assert b"(heatmap.png)" in files["README.md"]
