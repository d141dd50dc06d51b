"""docs/how-to/publish.md, word for word, with a Hub on this machine."""

from pathlib import Path

import pytest
from hub_server import HubServer
from pages import ROOT, run_page, small_work


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.usefixtures("manifest_file")
def test_code_blocks_run(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with small_work(monkeypatch):
        run_page(ROOT / "docs" / "how-to" / "publish.md")
    assert {"my-name/my-model", "my-name/recorded"} <= set(hub.repos)
