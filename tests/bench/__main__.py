"""`python -m tests.bench NAME`: run one benchmark, or list them."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

from threadpoolctl import threadpool_limits

from tests.bench import BENCHMARKS, Options
from tests.bench.context import machine
from tests.bench.table import Table, show


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    names = "\n".join(f"  {name:12} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"Benchmarks:\n{names}",
        epilog="Ends with code 1 where contenders disagree.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", choices=list(BENCHMARKS), help="none lists them")
    parser.add_argument("--repeat", type=int, default=3, metavar="K", help="[3] rounds, of which the median counts")
    parser.add_argument("--small", action="store_true", help="sizes that run in seconds: a trial, no measurement")
    parser.add_argument("--blas-threads", type=int, default=1, metavar="K", help="[1] as a worker of daskim has")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save context and tables")
    found = parser.parse_args(words)
    if found.repeat < 1 or found.blas_threads < 1:
        parser.error("--repeat and --blas-threads are at least 1")
    if found.name is None:
        parser.print_help()
    return found


def main() -> int:
    asked = arguments()
    if asked.name is None:
        return 0
    benchmark = import_module(f"tests.bench.{asked.name}")
    tables: list[Table] = []
    with threadpool_limits(asked.blas_threads):
        context = machine()
        for table in benchmark.run(Options(asked.repeat, asked.small)):
            show(table, context, first=not tables)
            tables.append(table)
    if asked.json is not None:
        record = {
            "benchmark": asked.name,
            "repeat": asked.repeat,
            "small": asked.small,
            "context": context,
            "tables": [vars(table) for table in tables],
        }
        text = json.dumps(record, indent=1, default=lambda number: number.item())  # numpy's own numbers
        asked.json.write_text(text + "\n", encoding="utf-8")
    failed = [claim for table in tables for claim, holds in table.checks if not holds]
    for claim in failed:
        print(f"does not hold: {claim}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
