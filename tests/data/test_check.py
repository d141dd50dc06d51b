import json
import shutil
from pathlib import Path
from typing import Any

import fake_nih14
import fake_own
import numpy as np
import pytest
import torch
from PIL import Image

from pylon_zoo.cli import main as cli
from pylon_zoo.data import Phantom, Sample, open_task
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
    assert report.passes
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
            p["severity"],
            p["kind"],
            frozenset(
                Path(item.split(": ")[1]).stem if ": " in item else item for item in p["items"]
            ),
        )
        for p in report["problems"]
    }
    assert found == {
        ("error", "unreadable", frozenset({"item 1"})),
        ("error", "unreadable", frozenset({"item 0"})),
        ("note", "empty class", frozenset({"val"})),
        ("error", "label conflict", frozenset({"test1"})),
        ("error", "label conflict", frozenset({"train2", "train3"})),
        ("error", "exact duplicate", frozenset({"train2", "train3"})),  # of two patients
        ("error", "duplicate across splits", frozenset({"train0", "test2"})),
        ("error", "group across splits", frozenset({"train0", "val1"})),
    }
    assert report["passes"] is False
    # Equal images differ in both labels; cyst and stone are a conflict each.
    assert report["counts"]["label conflict"] == 3
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "check", "csv", str(root)])
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == (
        "csv does not pass: 4 train, 4 val, 4 test images; 8 errors (2 unreadable, 3 label "
        "conflict, 1 exact duplicate, 1 duplicate across splits, 1 group across splits); 1 note "
        "(1 empty class)."
    )
    assert printed.index(" error ") < printed.index(" note ")


def test_a_sound_dataset_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = phantoms(tmp_path / "a", SOUND)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "check", "csv", str(root), "--workers", "2"])
    assert not stopped.value.code
    printed = capsys.readouterr().out
    assert printed == "csv passes: 4 train, 4 val, 4 test images; nothing amiss.\n"


def missing_splits(root: Path) -> dict[str, str]:
    """Splits that are missing, and how severe that is."""
    problems = check_task(open_task("nih14", str(root))).problems
    missing = [problem for problem in problems if problem.kind == "missing split"]
    return {problem.items[0]: problem.severity for problem in missing}


def test_a_list_that_is_not_there_is_noted_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    root = fake_nih14.write(tmp_path / "nih14")
    (root / "test_list.txt").write_bytes(b"\xff\xfe\xff")
    assert missing_splits(root) == {"test": "error"}
    (root / "test_list.txt").unlink()
    assert missing_splits(root) == {"test": "note"}
    report = check_task(open_task("nih14", str(root)))
    assert "test_list.txt" in report.problems[0].message
    # Where nothing can be opened, nothing was checked.
    (root / "BBox_List_2017.csv").unlink()
    assert missing_splits(root) == {"train": "error", "val": "error", "test": "error"}


@pytest.mark.parametrize(
    ("patients", "severity"), [(("7", "7"), "note"), (("7", "8"), "error"), (("", ""), "error")]
)
def test_copies_within_a_split_matter_where_they_count_as_independent(
    patients: tuple[str, str], severity: str
) -> None:
    image = Phantom("test")[0].image
    samples = [Sample(image=image, labels=torch.ones(1), group=group) for group in patients]
    dataset = ListOf(samples)
    (problem,) = check_splits({"train": dataset}).problems
    assert (problem.kind, problem.severity) == ("exact duplicate", severity)
    # Nearly equal ones are only suspected to be copies.
    near = image.clone()
    near[0, 0, 0] += 1
    samples[1] = Sample(image=near, labels=torch.ones(1), group=patients[1])
    (problem,) = check_splits({"train": dataset}).problems
    assert (problem.kind, problem.severity) == ("near duplicate", "note")
    across = {"train": ListOf(samples[:1]), "val": ListOf(samples[1:])}
    assert "duplicate across splits" in {p.kind for p in check_splits(across).errors}


class ListOf:
    """Samples of one class."""

    class_names = ("cyst",)

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def test_the_real_blood_smears_pass(bccd_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json_of(["data", "check", "bccd", str(bccd_root), "--json"], capsys)
    assert report["images"] == {"fit": 171, "select": 34, "val": 87}
    # The copy has no list of the test split.
    assert [(p["severity"], p["kind"], p["items"]) for p in report["problems"]] == [
        ("note", "missing split", ["test"])
    ]


def test_the_real_radiographs_pass(nih14_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json_of(["data", "check", "nih14", str(nih14_root), "--json"], capsys)
    assert report["images"] == {"train": 655, "val": 66, "test": 225}
    assert {p["severity"] for p in report["problems"]} == {"note"}
    assert report["counts"] == {"empty class": 4, "exact duplicate": 1}
    (copies,) = (p["items"] for p in report["problems"] if p["kind"] == "exact duplicate")
    assert [Path(item).name for item in copies] == ["00002658_001.png", "00002658_002.png"]


def json_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a command that finds no error prints."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert not stopped.value.code
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed["passes"] is True
    return printed


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
