import json
import shutil
from pathlib import Path

import fake_own
import numpy as np
import pytest
import torch
from PIL import Image

from pylon_zoo.cli import main as cli
from pylon_zoo.data import Phantom, open_task
from pylon_zoo.data.check import check_splits, check_task, perceptual_hash


def phantoms(root: Path, rows: dict[str, tuple[str, str, str]]) -> Path:
    """A csv dataset of phantoms; ``rows``: file -> (patient, split, labels of cyst and stone)."""
    (root / "images").mkdir(parents=True)
    lines = ["path,patient,split,cyst,stone"]
    for index, (name, (patient, split, labels)) in enumerate(rows.items()):
        pixels = Phantom("test", size=128)[index].image[0].numpy()
        Image.fromarray(pixels).save(root / "images" / name)
        lines.append(f"{name},{patient},{split},{labels}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


SOUND = {
    f"{split}{index}.png": (f"{split} patient {index}", split, labels)
    for split in ("train", "val", "test")
    for index, labels in enumerate(("1,0", "0,1", "0,0", "1,1"))
}


def test_a_sound_dataset_has_no_problem(tmp_path: Path) -> None:
    report = check_task(open_task("csv", str(phantoms(tmp_path / "a", SOUND))))
    assert report.problems == ()
    assert report.images == {"train": 4, "val": 4, "test": 4}
    drawn = {split: Phantom(split, size=128, length=60) for split in ("train", "val")}
    assert check_splits(drawn).problems == ()


def test_every_planted_fault_is_found_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = dict(SOUND)
    rows["val1.png"] = ("train patient 0", "val", "0,0")  # leak; and val has no stone left
    rows["val3.png"] = ("val patient 3", "val", "1,0")
    root = phantoms(tmp_path / "faulty", rows)
    images = root / "images"
    (images / "train1.png").unlink()
    (images / "test0.png").write_bytes((images / "test0.png").read_bytes()[:900])
    # Equal pixels in another format within train, with another label of stone.
    Image.open(images / "train2.png").save(images / "train3.bmp")
    (images / "train3.png").write_bytes((images / "train3.bmp").read_bytes())
    # A brightened, resized, recompressed copy of a train image in test.
    small = Image.open(images / "train0.png").resize((100, 100), Image.Resampling.BICUBIC)
    small.point(lambda value: value * 0.9 + 10).save(images / "copy.jpg", quality=85)
    shutil.move(images / "copy.jpg", images / "test2.png")
    # A box of a class that is labelled absent.
    (root / "boxes.csv").write_text("path,class,x0,y0,x1,y1\ntest1.png,cyst,1,1,9,9\n")

    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "check", "csv", str(root), "--json"])
    assert stopped.value.code == 1
    report = json.loads(capsys.readouterr().out)
    found = {
        (
            p["kind"],
            frozenset(
                Path(item.split(": ")[1]).stem if ": " in item else item for item in p["items"]
            ),
        )
        for p in report["problems"]
    }
    assert found == {
        ("unreadable", frozenset({"item 1"})),
        ("unreadable", frozenset({"item 0"})),
        ("empty class", frozenset({"val"})),
        ("label conflict", frozenset({"test1"})),
        ("label conflict", frozenset({"train2", "train3"})),
        ("exact duplicate", frozenset({"train2", "train3"})),
        ("duplicate across splits", frozenset({"train0", "test2"})),
        ("group across splits", frozenset({"train0", "val1"})),
    }
    # Equal images differ in both labels; cyst and stone are a conflict each.
    assert report["counts"]["label conflict"] == 3
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "check", "csv", str(root)])
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert "1 duplicate across splits" in printed
    assert "4 train, 4 val, 4 test" in printed


def test_a_sound_dataset_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = phantoms(tmp_path / "a", SOUND)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "check", "csv", str(root), "--workers", "2"])
    assert not stopped.value.code
    assert "nothing amiss" in capsys.readouterr().out


def test_a_missing_split_is_a_problem(tmp_path: Path) -> None:
    import fake_nih14

    root = fake_nih14.write(tmp_path / "nih14")
    (root / "test_list.txt").unlink()
    problems = check_task(open_task("nih14", str(root))).problems
    missing = [problem for problem in problems if problem.kind == "missing split"]
    assert [problem.items for problem in missing] == [("test",)]
    assert "test_list.txt" in missing[0].message


def test_perceptual_hash() -> None:
    image = Phantom("test", size=256)[0].image
    original = perceptual_hash(image)
    assert original is not None
    assert original.shape == (256,)
    darker = perceptual_hash((image * 0.8).to(torch.uint8))
    assert darker is not None
    assert np.count_nonzero(original != darker) <= 10
    mirrored = perceptual_hash(image.flip(-1))
    assert mirrored is not None
    assert np.count_nonzero(original != mirrored) > 40
    assert perceptual_hash(torch.full((1, 64, 64), 7)) is None


def test_own_pictures_of_noise_are_not_taken_for_copies(tmp_path: Path) -> None:
    root = fake_own.csv_table(tmp_path, images=40, patients=40)
    kinds = check_task(open_task("csv", str(root))).counts()
    assert not any("duplicate" in kind or "group" in kind for kind in kinds)
