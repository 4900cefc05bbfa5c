"""`python -m tests.bench NAME`: run one benchmark, list them, or compare saved runs."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module
from pathlib import Path

from threadpoolctl import threadpool_limits

from tests.bench import BENCHMARKS, Options
from tests.bench.compare import compared
from tests.bench.context import load as load_now
from tests.bench.context import machine
from tests.bench.record import Record, load, save
from tests.bench.table import Table, show

EPILOG = """Ends with code 1 where contenders disagree. Missed targets and slower figures are told and end with code 0.

  python -m tests.bench reduce --json now.json --plot now.svg
  python -m tests.bench reduce --against now.json      run it again and set it beside a saved run
  python -m tests.bench --compare old.json new.json    two saved runs; with --plot, the second is drawn
  python -m tests.bench NAME --help                    options that only this benchmark has"""


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """The parser, with the options of the benchmark that the words name."""
    names = "\n".join(f"  {name:12} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"Benchmarks:\n{names}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", choices=list(BENCHMARKS), help="none lists them")
    parser.add_argument("--repeat", type=_positive, default=3, metavar="K", help="[3] rounds; the median counts")
    parser.add_argument("--small", action="store_true", help="sizes that run in seconds: a trial, no measurement")
    parser.add_argument("--n", type=_positive, metavar="N", help="images, where a benchmark takes any number")
    parser.add_argument("--blas-threads", type=_positive, default=1, metavar="K", help="[1] as a worker of daskim has")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save context and tables")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the tables: .svg or .png")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with a run that --json saved")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OLD", "NEW"), help="two saved runs; runs nothing")
    if words and words[0] in BENCHMARKS:
        add = getattr(import_module(f"tests.bench.{words[0]}"), "add_options", None)
        if add is not None:
            add(parser.add_argument_group(f"only {words[0]}"))
    return parser


def _positive(word: str) -> int:
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def arguments(words: list[str]) -> argparse.Namespace:
    parser = parser_of(words)
    found = parser.parse_args(words)
    if found.plot is not None and found.plot.suffix not in (".svg", ".png"):
        parser.error(f"--plot: {found.plot.name} ends neither in .svg nor in .png")
    if found.compare is not None and (found.name is not None or found.against or found.json):
        parser.error("--compare runs nothing: it goes with --plot alone")
    if found.name is None and found.compare is None:
        parser.print_help()
    return found


def run(asked: argparse.Namespace) -> Record:
    """Run the benchmark, printing each table as it is made."""
    benchmark = import_module(f"tests.bench.{asked.name}")
    tables: list[Table] = []
    options = Options(asked.repeat, asked.small, asked.n, asked)
    with threadpool_limits(asked.blas_threads):
        context = machine()
        for table in benchmark.run(options):
            show(table, context, first=not tables)
            tables.append(table)
    return Record(asked.name, asked.repeat, asked.small, {**context, "load_at_end": load_now()}, tables)


def main(words: list[str]) -> int:
    asked = arguments(words)
    if asked.compare is not None:
        old, record = map(load, asked.compare)
    elif asked.name is not None:
        old = None if asked.against is None else load(asked.against)  # before the run: it may be long
        record = run(asked)
    else:
        return 0
    if asked.json is not None:
        save(record, asked.json)
    if asked.plot is not None:
        from tests.bench.plot import draw

        draw(record, asked.plot)
    if old is not None:
        print("\n".join(compared(old, record)))
    if asked.compare is not None:
        return 0
    failed = [claim for table in record.tables for claim, holds in table.checks if not holds]
    for claim in failed:
        print(f"does not hold: {claim}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    # As Ctrl+C does: what was started in processes of its own is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
