"""What a command would do and need: the table of --plan."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps
from typing import Any

from daskim.jobs.options import PlaceOptions, run_options_of, size_text
from daskim.jobs.terminal import plain, print_table
from daskim.settings import Settings

__all__ = ["show_plan"]


def _work(settings: Settings, size: Any) -> str:
    """What decides the amount of work besides the images."""
    if settings.method == "compare":
        return f"{size.possible:,} possible pairs"
    return f"{size.columns:,} coefficients, {size.n_clusters:,} clusters"


def show_plan(
    settings: Settings,
    run: str,
    where: PlaceOptions,
    options: dict[str, Any],
    json: bool,
    run_option: Sequence[str] | None = None,
) -> int:
    """The table of --plan; nothing is computed or written."""
    from daskim.api import describe_place, preview_run
    from daskim.pipeline import IDLE, memory_of, refuse_misfit

    given = where.arguments()
    place = describe_place(
        given["cluster"], workers=given["workers"], memory=given["memory"], options=given["place_options"]
    )
    try:
        states, size, context = preview_run(
            settings,
            run,
            place,
            storage_options=options,
            run_options=run_options_of(run, settings.source.inputs, options, run_option),
        )
    finally:
        place.close()
    rows = []
    for state in states:
        need, limit = memory_of(context, state.need)
        blocks = f"{state.done}/{state.need.blocks}" if state.state == "open" else str(state.need.blocks)
        # With threads the process that orders the work is the one worker.
        driver = need if place.name == "threads" else IDLE + state.need.driver
        rows.append((state.stage.name, state.state, blocks, state.need.read, state.need.write, need, limit, driver))
    if json:
        memory = ("memory_bytes", "memory_limit_bytes", "driver_bytes")
        keys = ("stage", "state", "blocks", "read_bytes", "write_bytes", *memory)
        print(dumps({"event": "plan", "n": size.n, "stages": [dict(zip(keys, row)) for row in rows]}))
    else:
        print_table(
            f"{size.n:,} images of {size.height} x {size.width} x {size.channels}, {_work(settings, size)}, "
            f"{place.workers} workers ({place.name})",
            ["stage", "state", "blocks", "reads", "writes", "memory per worker", "limit", "of driver"],
            [(*row[:3], *map(size_text, row[3:])) for row in rows],
            numbers=6,
        )
        for state in states:
            if state.changed:
                print(plain(f"stale: {state.stage.name}: {state.changed}; --restart {state.stage.name}"))
    refuse_misfit(context, {state.stage.name: state.need for state in states})
    return 0
