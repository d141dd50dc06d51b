"""Execute the notebooks of examples/ and keep what they print and draw.

    python docs/notebooks.py

Warnings and duplicates of pictures are dropped, so that the files stay small and the same.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"


def execute(path: Path) -> Any:
    """The notebook with its outputs, run from its first cell to its last in an empty folder."""
    notebook = nbformat.read(path, as_version=4)
    # The kernel is this very interpreter, and sees this very package.
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, environment):
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("data", {}).pop("image/jpeg", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main() -> None:
    """Write all notebooks."""
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        nbformat.write(execute(path), path)


if __name__ == "__main__":
    main()
