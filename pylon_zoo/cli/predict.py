"""``pylon-zoo predict``: what is in images, and where."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pylon_zoo.cli.completion import complete_checkpoints, one_of
from pylon_zoo.cli.options import DEFAULT_MODEL, Device, usable_device
from pylon_zoo.cli.terminal import FAILED, AsJson, make_table, note, out, print_json
from pylon_zoo.errors import MissingExtraError, PylonZooError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pylon_zoo.prediction import Prediction

__all__ = ["EXAMPLES", "predict"]

EXAMPLES = (
    "pylon-zoo predict --phantom 4",
    "pylon-zoo predict chest.png --model my_model",
    "pylon-zoo predict 'scans/**/*.png' --output predictions --maps --resume",
    "pylon-zoo predict study.dcm --frames all --json",
    "pylon-zoo predict study.dcm --dicom seg",
)


def predict(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Image files, folders and DICOM trees, patterns in quotes ('scans/**/*.png'), or "
            "CSV files that list them.",
            show_default=False,
        ),
    ] = None,
    phantom: Annotated[
        int | None,
        typer.Option(
            help="Predict a generated radiograph phantom of this number instead.",
            min=0,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Checkpoint: a name or a folder.",
            autocompletion=complete_checkpoints,
        ),
    ] = DEFAULT_MODEL,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for predictions.csv and pictures.")
    ] = Path("predictions"),
    threshold: Annotated[
        float,
        typer.Option(
            help="Pictures are drawn of classes at least this probable, and of the first; regions "
            "that reach it are outlined.",
            min=0,
            max=1,
        ),
    ] = 0.5,
    overlays: Annotated[
        bool | None,
        typer.Option(
            "--overlays/--no-overlays",
            help="Draw pictures; by default where the extra viz is installed.",
            show_default=False,
        ),
    ] = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Write each image's maps to maps/*.npz.")
    ] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write predictions.parquet too (extra parquet).")
    ] = False,
    dicom: Annotated[
        str | None,
        typer.Option(
            help="Write each DICOM image's findings for the clinic's tools (extra dicom): sc, a "
            "picture, or seg, masks. They carry the patient's and the study's identifiers.",
            autocompletion=one_of("sc", "seg"),
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        str,
        typer.Option(
            help="Which frame of DICOM and TIFF files: an index from 0, or all.",
            autocompletion=one_of("0", "all"),
        ),
    ] = "0",
    alignment: Annotated[
        str,
        typer.Option(
            help="corners_false, or receptive_field for coarse maps.",
            autocompletion=one_of("corners_false", "receptive_field"),
        ),
    ] = "corners_false",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the images that the table lacks.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that read images.", min=0)] = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Say what is in images and where: predictions.csv, and an overlay per finding.

    Images that cannot be read are skipped and listed; the exit code is then 1. Under accelerate
    launch or torchrun, the processes share the images and fill one table.
    """
    from pylon_zoo import bulk, dicom_output
    from pylon_zoo.data import Phantom
    from pylon_zoo.prediction import Prediction
    from pylon_zoo.prediction import predict as predict_one
    from pylon_zoo.progress import track
    from pylon_zoo.weights import load_pretrained

    if bool(sources) == (phantom is not None):
        raise typer.BadParameter("give image files, folders, patterns or lists, or --phantom N.")
    if parquet:
        bulk.require_pyarrow()
    if dicom is not None:
        if dicom not in dicom_output.KINDS or phantom is not None:
            raise typer.BadParameter("--dicom is sc or seg, and goes with DICOM files.")
        dicom_output.require_highdicom()
    overlays = _can_draw(overlays)
    images = bulk.find_frames(sources or [], frames)
    names = {f.source: name for f, name in zip(images, bulk.image_names(images), strict=True)}
    origins = {frame.source: frame for frame in images}
    with bulk.Processes.joined() as processes:
        rank, first = processes.rank, processes.rank == 0
        if device == "cuda" and processes.count > 1:
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        loaded = load_pretrained(model, device=usable_device(device))
        table = bulk.PredictionTable(
            output,
            {"model": model, "alignment": alignment, "frames": frames},
            classes=loaded.spec.num_classes,
            resume=resume,
            processes=processes,
        )
        todo = [f for f in images[rank :: processes.count] if f.source not in table.done]
        results: Iterable[Prediction | PylonZooError]
        results = bulk.predict_files(loaded, todo, alignment=alignment, workers=workers)
        if phantom is not None:
            results = [predict_one(loaded, Phantom("test")[phantom], alignment)] if first else []
        count = len(todo) + (phantom is not None)
        failures: list[str] = []
        pictures = 0
        for result in track(results, "predicting", total=count, enabled=first):
            if not isinstance(result, Prediction):
                failures.append(str(result))
                continue
            source = result.sample.source
            name = names.get(source, source)
            # Rows last: with them the image counts as done.
            if dicom is not None:
                origin = origins[source]
                try:
                    dicom_output.write_findings(
                        result,
                        dicom,
                        origin.path,
                        output / f"{name}_{dicom}.dcm",
                        threshold=threshold,
                        frame=origin.index,
                        model=loaded.spec.name,
                    )
                except PylonZooError as error:
                    failures.append(str(error))
                    continue
            if maps:
                bulk.save_maps(result, output / "maps" / f"{name}.npz")
            if overlays:
                pictures += _draw_findings(result, output, name, threshold)
            table.add(result)
            if len(images) <= 1 and not as_json:
                _print_findings(result)
        failures = processes.gather(failures)
        pictures, count = (sum(processes.gather([n])) for n in (pictures, count))
        table.finish(list(names))
    if not first:
        return
    if parquet:
        table.write_parquet()
    if as_json:
        print_json(
            {"table": str(table.path), "predictions": table.read(), "skipped": sorted(failures)}
        )
    earlier = f" and {len(images) - count} earlier" if len(images) > count else ""
    note(
        f"{count - len(failures)} image(s){earlier}: {table.path} and {pictures} overlay(s) "
        f"in {output}. Not for clinical use."
    )
    if failures:
        for failure in failures:
            note(f"skipped {failure}", "yellow")
        raise typer.Exit(FAILED)


def _can_draw(wanted: bool | None) -> bool:
    """Whether to draw; without matplotlib a wish is an error, and no wish a note."""
    if wanted is False:
        return False
    try:
        import matplotlib  # noqa: F401
    except ImportError as missing:
        error = MissingExtraError("matplotlib", "viz", "Drawing heatmaps")
        if wanted:
            raise error from missing
        note(f"No pictures: {error}", "yellow")
        return False
    return True


def _draw_findings(prediction: Prediction, output: Path, name: str, threshold: float) -> int:
    drawn = 0
    for finding in prediction.findings:
        # Always the most probable class, so that there is a picture to look at.
        if drawn and finding.probability < threshold:
            break
        picture = prediction.plot([finding.class_name], threshold=threshold)
        picture.save(output / f"{name}_{finding.class_name.replace(' ', '_')}.png")
        drawn += 1
    return drawn


def _print_findings(prediction: Prediction) -> None:
    numbers = ("probability", "peak x", "peak y")
    table = make_table("class", *numbers, "inside its box", right=numbers)
    for f in prediction.findings:
        inside = {None: "no box known", True: "yes", False: "no"}[f.inside]
        if f.inside is None and len(prediction.sample.boxes):
            inside = "not in the image"
        table.add_row(f.class_name, f"{f.probability:.3f}", str(f.x), str(f.y), inside)
    out.print(table, markup=False)
