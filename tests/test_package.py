import subprocess
import sys
from pathlib import Path

import pytest

import pylon_zoo

PACKAGE = Path(pylon_zoo.__file__).parent


def test_importing_is_lazy() -> None:
    code = (
        "import sys, pylon_zoo\n"
        "dir(pylon_zoo)\n"
        "heavy = {'torch', 'timm', 'numpy', 'PIL', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_resolves() -> None:
    for name in pylon_zoo.__all__:
        assert getattr(pylon_zoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        pylon_zoo.creat_model  # noqa: B018


#: Who may import whom: a part may import those on the lines above it.
LAYERS = [
    {"errors"},
    {"spec", "encoders", "files", "progress"},
    {"architectures", "data", "metrics"},
    {"registry", "preprocessing"},
    {"heatmaps", "weights"},
    {"prediction", "export", "dicom_output", "training"},
    {"recipes", "bulk", "demo"},
    {"benchmark", "reproduction"},
    {"cli"},
]


def test_imports_point_down_only() -> None:
    import ast

    level = {part: depth for depth, parts in enumerate(LAYERS) for part in parts}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # Only what runs when the module is imported: a deferred import is a way up on purpose.
        nodes = [n for n in tree.body if isinstance(n, ast.ImportFrom)]
        for node in nodes:
            module = node.module or ""
            if module.startswith("pylon_zoo."):
                target = module.split(".")[1]
            elif module == "pylon_zoo":
                target = next((a.name for a in node.names if a.name in level), part)
            else:
                continue
            if target != part and level[target] >= level[part]:
                wrong.append(f"{relative} imports {target}")
    assert not wrong
