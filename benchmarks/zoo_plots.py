"""The pictures of the zoo's benchmark: dots for runs, and a forest of the claims' effects."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from zoo_report import (
    ALIGNMENTS,
    CLAIMS,
    SMALL,
    Row,
    column,
    findings,
    measure,
    number,
    rows_of,
    variants_in,
)

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
#: Of Okabe and Ito's palette, told apart with any color vision; by shape and place as well.
COLORS = {"corners_false": "#D55E00", "receptive_field": "#0072B2", "": "#000000"}
MARKERS = {"corners_false": "o", "receptive_field": "s", "": "D"}
OFFSETS = {"corners_false": 0.17, "receptive_field": -0.17, "": 0.0}
GRAY = "#666666"
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.dpi": 110,
}
#: Of a picture's text chunks, the one that says which rows it shows.
ROWS = "rows"


def draw(tables: dict[str, list[Row]], variants: Sequence[str], profile: str) -> None:
    """Write ``zoo_{profile}_{localization,small,claims}.png``.

    Args:
        tables: rows of each dataset.
        variants: in the order from top to bottom; those that no dataset has are left out.
        profile: part of the names.
    """
    trained = {variant for rows in tables.values() for variant in variants_in(rows)}
    variants = [variant for variant in variants if variant in trained]
    pictures = {
        "localization": draw_runs(tables, variants, "localization"),
        "small": draw_runs(tables, variants, "small"),
        "claims": draw_claims(tables),
    }
    for name, figure in pictures.items():
        with rc_context(STYLE):
            figure.savefig(
                IMAGES / f"zoo_{profile}_{name}.png",
                metadata={"Software": None, ROWS: digest(tables)},
            )


def digest(tables: dict[str, list[Row]]) -> str:
    """Of all that the pictures are drawn from."""
    return hashlib.sha256(json.dumps(tables).encode()).hexdigest()


def draw_runs(tables: dict[str, list[Row]], variants: Sequence[str], metric: str) -> Figure:
    """Point localization, a panel for each dataset: dots are runs, bars their means.

    Args:
        tables: rows of each dataset.
        variants: from top to bottom.
        metric: ``"localization"`` for all classes, ``"small"`` for the one of the smallest boxes.
    """
    with rc_context(STYLE):
        figure = Figure(
            figsize=(2.2 + 3.3 * len(tables), 1.2 + 0.44 * len(variants)), layout="constrained"
        )
        panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for panel, (dataset, rows) in zip(panels, tables.items(), strict=True):
            for place, variant in enumerate(variants):
                runs = rows_of(rows, variant)
                for alignment in ALIGNMENTS if runs else ():
                    measured = measure(runs, column(dataset, metric, alignment))
                    y, color = place - OFFSETS[alignment], COLORS[alignment]
                    values = measured.by_seed
                    dots = {"color": color, "marker": MARKERS[alignment], "alpha": 0.7, "lw": 0}
                    panel.scatter(values, [y] * len(values), s=26, **dots)
                    if len(values) > 1:
                        panel.plot([measured.mean] * 2, [y - 0.14, y + 0.14], color=color, lw=2.5)
            chance = number(rows[0], column(dataset, metric, "corners_false"), "chance")
            panel.axvline(chance, color=GRAY, ls="--", lw=1.2, zorder=0)
            panel.set_title(dataset if metric == "localization" else f"{dataset}: {SMALL[dataset]}")
            panel.set_xlim(-0.03, 1.03)
            panel.set_xlabel("point localization")
            for place in range(0, len(variants), 2):
                panel.axhspan(place - 0.5, place + 0.5, color="#f3f3f3", zorder=-1)
        panels[0].set_yticks(range(len(variants)), variants)
        panels[0].set_ylim(len(variants) - 0.5, -0.5)
        for panel in panels:
            panel.tick_params(axis="y", length=0)
        marks = [
            *(line(COLORS[k], name, marker=MARKERS[k], ls="") for k, name in ALIGNMENTS.items()),
            line("black", "mean of the seeds", marker="|", ls="", ms=12, mew=2.5),
            line(GRAY, "chance", ls="--"),
        ]
        add_legend(figure, marks)
    return figure


def draw_claims(tables: dict[str, list[Row]]) -> Figure:
    """The claims' effects with their intervals, a panel for each dataset."""
    with rc_context(STYLE):
        figure = Figure(
            figsize=(3.6 + 3.1 * len(tables), 1.2 + 0.68 * len(CLAIMS)), layout="constrained"
        )
        panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        panel_of = dict(zip(tables, panels, strict=True))
        for found in findings(tables):
            place = CLAIMS.index(found.claim) - OFFSETS[found.alignment]
            color = COLORS[found.alignment]
            panel = panel_of[found.dataset]
            panel.plot(found.effect.interval(), [place] * 2, color=color, lw=2)
            decided = found.verdict in ("holds", "does not hold")
            panel.plot(
                [found.effect.mean],
                [place],
                marker=MARKERS[found.alignment],
                ms=7,
                mec=color,
                mfc=color if decided else "white",
                mew=1.6,
            )
        for dataset, panel in panel_of.items():
            panel.axvline(0, color=GRAY, lw=1.2, zorder=0)
            for place, claim in enumerate(CLAIMS):
                if claim.margin:
                    panel.plot([-claim.margin] * 2, [place - 0.4, place + 0.4], color=GRAY, ls=":")
                if place % 2 == 0:
                    panel.axhspan(place - 0.5, place + 0.5, color="#f3f3f3", zorder=-1)
            panel.set_title(dataset)
            panel.set_xlim(-1.05, 1.05)
            panel.set_xticks((-1, -0.5, 0, 0.5, 1))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.set_xlabel("effect")
            panel.tick_params(axis="y", length=0)
        texts = ["\n".join(textwrap.wrap(claim.text, 36)) for claim in CLAIMS]
        panels[0].set_yticks(range(len(CLAIMS)), texts)
        panels[0].set_ylim(len(CLAIMS) - 0.5, -0.5)
        marks = [
            *(
                line(COLORS[key], ALIGNMENTS.get(key, "no map"), marker=MARKERS[key], ms=7)
                for key in (*ALIGNMENTS, "")
            ),
            line("black", "cannot tell here", marker="o", ls="", ms=7, mfc="white", mew=1.6),
        ]
        add_legend(figure, marks)
    return figure


def add_legend(figure: Figure, marks: list[Line2D]) -> None:
    """Below all panels, in two rows where there is one panel only."""
    columns = len(marks) if len(figure.axes) > 1 else 2
    figure.legend(handles=marks, loc="outside lower center", ncols=columns, frameon=False)


def line(color: str, label: str, **style: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], color=color, label=label, **style)
