"""What a command would do and need: the table of --plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskim.errors import SourceError
from daskim.jobs.options import CostOptions, PlaceOptions, bytes_of, run_options_of, size_text
from daskim.jobs.terminal import plain, print_table

if TYPE_CHECKING:
    from daskim.cost import Estimate, Prices
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
    cost: CostOptions,
    options: dict[str, Any],
    json: bool,
    run_option: Sequence[str] | None = None,
) -> int:
    """The tables of --plan: what stages need, and what they would take; nothing is computed or written."""
    from daskim.api import describe_place, preview_run
    from daskim.cost import Prices, estimate, total, work_of
    from daskim.pipeline import IDLE, memory_of, refuse_misfit

    rates = _rates(cost.rates)

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
    # Threads need no scheduler; elsewhere each task goes through one.
    prices = Prices(place.workers, place.name != "threads", bytes_of(cost.bandwidth, "--bandwidth"), cost.price_hour)
    costs = {}
    rows = []
    for state in states:
        need, limit = memory_of(context, state.need)
        blocks = f"{state.done}/{state.need.blocks}" if state.state == "open" else str(state.need.blocks)
        # With threads the process that orders the work is the one worker.
        driver = need if place.name == "threads" else IDLE + state.need.driver
        name = state.stage.name
        costs[name] = estimate(work_of(name, size, settings, state.need), state.need, prices, rates)
        rows.append((state.stage.name, state.state, blocks, state.need.read, state.need.write, need, limit, driver))
    if json:
        memory = ("memory_bytes", "memory_limit_bytes", "driver_bytes")
        keys = ("stage", "state", "blocks", "read_bytes", "write_bytes", *memory)
        stages = [{**dict(zip(keys, row)), "cost": vars(costs[row[0]])} for row in rows]
        summed = {"cost": vars(total(list(costs.values()))), "workers": place.workers}
        print(dumps({"event": "plan", "n": size.n, "stages": stages, **summed}))
    else:
        print_table(
            f"{size.n:,} images of {size.height} x {size.width} x {size.channels}, {_work(settings, size)}, "
            f"{place.workers} workers ({place.name})",
            ["stage", "state", "blocks", "reads", "writes", "memory per worker", "limit", "of driver"],
            [(*row[:3], *map(size_text, row[3:])) for row in rows],
            numbers=6,
        )
        _show_costs(costs, total(list(costs.values())), size.n, prices)
        for state in states:
            if state.changed:
                print(plain(f"stale: {state.stage.name}: {state.changed}; --restart {state.stage.name}"))
    refuse_misfit(context, {state.stage.name: state.need for state in states})
    return 0


def _rates(path: str | None) -> dict[str, float]:
    from daskim.cost import rates_of

    if path is None:
        return rates_of(None)
    try:
        return rates_of(Path(path).read_text(encoding="utf-8"), f"--rates {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"--rates {path}: cannot be read ({error})", "Name a JSON file of rates.") from None


def _show_costs(costs: Mapping[str, Estimate], together: Estimate, n: int, prices: Prices) -> None:
    """Tasks, flops, bytes, hours and money of each stage, of all, and of a million images at this size."""
    scale = 1e6 / max(1, n)
    rows = [_cost_row(name, cost, 1.0) for name, cost in costs.items()]
    rows += [_cost_row("all stages", together, 1.0), _cost_row("per million images", together, scale)]
    rate = f"{prices.hour:g} an hour" if prices.hour is not None else "--price-hour gives money"
    flow = "a local disk" if prices.bandwidth is None else f"{size_text(prices.bandwidth)}/s for each worker"
    print_table(
        f"What it would take, about: {prices.workers} workers, {rate}, {flow}",
        ["stage", "tasks", "Gflop", "moved", "core hours", "hours", "money"],
        rows,
        numbers=6,
    )


def _cost_row(name: str, cost: Estimate, scale: float) -> tuple[str, ...]:
    hours = [scale * seconds / 3600 for seconds in (cost.core_seconds, cost.seconds)]
    money = "-" if cost.money is None else f"{scale * cost.money:,.4g}"
    counts = (f"{scale * cost.tasks:,.0f}", f"{scale * cost.flops / 1e9:,.0f}", size_text(scale * cost.bytes))
    return (name, *counts, *(f"{value:,.4f}" if value < 1 else f"{value:,.2f}" for value in hours), money)
