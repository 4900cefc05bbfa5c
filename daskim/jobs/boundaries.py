"""python -m daskim.jobs.boundaries: where a trained model changes its mind between images of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from json import dumps
from typing import Annotated, Any

from cyclopts import Parameter

from daskim.errors import SettingsError
from daskim.jobs.options import Json, Quiet, RunOptions, run_options_of, storage_options
from daskim.jobs.terminal import Display, command_app, plain, print_table, run_app

__all__ = ["app", "main"]

EPILOGUE = """\
The model sees (x * scale - mean) / std of each pixel x, 0 to 255. A module:function is imported and run: name only code
that you trust. The table `boundaries` has one row a pair; every flip in it is one, to --tol, and every stretch of one
class longer than 1 / --steps of the line is found. An earlier result in RUN is replaced.
Exit codes: 0 finished, 1 bug, 2 usage or settings, 4 source or run cannot be reached, 5 the model failed, 130
interrupted.
"""

app = command_app(
    "boundaries",
    """Find a trained model's decision boundaries between pairs of images of a finished run.

    Walks the straight line between the two images of each pair and finds every change of class: between images that
    the run found similar, influential (alike, labels differ), dissimilar, and drawn at random.""",
    EPILOGUE,
)


@app.default
def boundaries(
    run: Annotated[str, Parameter(name="RUN", help="Directory or URL of a finished run.")],
    /,
    *,
    model: Annotated[
        str, Parameter(help="FILE.onnx, or module:function that takes a batch and gives (batch, classes) scores.")
    ],
    pairs: Annotated[
        str | None,
        Parameter(help="[all] Kinds with commas: similar, influential, dissimilar, random; or FILE.csv of ids a,b."),
    ] = None,
    limit: Annotated[int, Parameter(help="Pairs of each kind at most; of more, so many are drawn.")] = 200,
    steps: Annotated[int, Parameter(help="Equal intervals of each line.")] = 64,
    tol: Annotated[float, Parameter(help="How exactly a flip is found, as a share of the line.")] = 1e-3,
    seed: Annotated[int, Parameter(help="Of the pairs that are drawn.")] = 0,
    size: Annotated[
        str | None, Parameter(help="HxW that the model sees [its own, else the run's standard size].")
    ] = None,
    mode: Annotated[str | None, Parameter(help="RGB or L [by the model's channels, else that of the run].")] = None,
    scale: Annotated[str | None, Parameter(help="Factor of the grey levels [1/255; 1 for a model of uint8].")] = None,
    mean: Annotated[
        str | None, Parameter(help="[0] Subtracted then: one number, or one a channel with commas.")
    ] = None,
    std: Annotated[str | None, Parameter(help="[1] Divided by then: one number, or one a channel with commas.")] = None,
    layout: Annotated[
        str | None, Parameter(help="nhwc, nchw or flat (pixels row by row) [as the model's shape says, else nhwc].")
    ] = None,
    dtype: Annotated[
        str | None, Parameter(help="float32, float16, float64 or uint8 [the model's, else float32].")
    ] = None,
    output: Annotated[
        str | None, Parameter(help="Output of an ONNX model that holds the scores, if several may.")
    ] = None,
    figures: Annotated[str | None, Parameter(help="Directory for the figures, as SVG and PNG.")] = None,
    storage_option: Annotated[
        list[str] | None,
        Parameter(help="key=value for fsspec, for a RUN and source that are URLs; repeat.", negative=""),
    ] = None,
    run_option: RunOptions = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Find a model's decision boundaries between pairs of images."""
    for name, text in (("RUN", run), ("--model", model), ("--figures", figures)):
        if text == "":
            raise SettingsError(f"{name} is empty", f"See {app.name[0]} --help.")
    options = storage_options(storage_option or [])
    from daskim.boundaries import CHOICES, find_boundaries
    from daskim.lease import held
    from daskim.models import Preprocessing
    from daskim.results import open_run

    finished = open_run(run, run_options=run_options_of(run, [run], options, run_option) if "://" in run else {})
    with Display(quiet=quiet, as_json=json) as display, held(finished.store, display.say):
        found = find_boundaries(
            finished,
            model,
            pairs=",".join(CHOICES) if pairs is None else pairs,
            limit=limit,
            steps=steps,
            tol=tol,
            seed=seed,
            preprocessing=Preprocessing(size, mode, scale, mean, std, layout, dtype),
            output=output,
            storage_options=options,
            progress=display,
        )
        if figures is not None:
            _draw(finished, figures, options)
    if json:
        print(dumps({"event": "summary", **found}))
    elif not quiet:
        _show(found, run, figures)
    return 0


def _draw(finished: Any, folder: str, options: dict[str, Any]) -> None:
    from daskim.report.figures import write_figures

    write_figures(
        finished,
        folder,
        storage_options=options if "://" in folder else {},
        names=("boundary-shares", "boundary-flips", "boundary-lines"),
    )


def _show(found: Mapping[str, Any], run: str, figures: str | None) -> None:
    how = found["preprocessing"]
    rows = []
    for kind, told in found["kinds"].items():
        rows.append(_row(kind, told))
        if len(told["labels"]) > 1:
            words = {"same": "  one label", "differ": "  labels differ", "unknown": "  label unknown"}
            rows += [_row(words[name], part) for name, part in told["labels"].items()]
    header = ["", "pairs", "no boundary", "95 %", "a pair", "same class", "of these none", "return"]
    title = f"Boundaries of {found['model']} ({found['classes']} classes, {how['size']} {how['mode']})"
    print_table(title, header, rows, numbers=7)
    verdicts = [
        f"{_percent(told['no_boundary'])} of the {kind} pairs" for kind, told in found["kinds"].items() if told["pairs"]
    ]
    print(f"No boundary was found between {', '.join(verdicts)}.")
    for kind, told in found["kinds"].items():
        left = f"; {told['unreadable']} left out: an image cannot be read" if told["unreadable"] else ""
        print(plain(f"{kind}: {told['basis']}{left}"))
    print(f"{found['calls']:,} images classified in {found['seconds']:.1f} s")
    print(plain(f"The flips are in {run}: tables/boundaries, boundaries/summary.json"))
    if figures is not None:
        print(plain(f"Figures are in {figures}"))


def _row(name: str, told: Mapping[str, Any]) -> tuple[object, ...]:
    none = told["no_boundary"]
    mean = told["mean_boundaries"]
    return (
        name,
        f"{told['pairs']:,}",
        _percent(none),
        f"{100 * none['low']:.0f} to {100 * none['high']:.0f} %" if none["of"] else "-",
        "-" if mean is None else f"{mean:.2f}",
        _percent(told["one_class"]),
        _percent(told["no_boundary_in_class"]),
        _percent(told["returns"]),
    )


def _percent(share: Mapping[str, Any]) -> str:
    return f"{100 * share['share']:.0f} %" if share["of"] else "-"


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit code."""
    return run_app(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
