"""daskim looks at an image data set before anyone trains on it: what is redundant, influential, anomalous or leaked.

import daskim
found = daskim.reduce("photos/", run="photos-run")
found.plan, found.pairs, found.influential      # DataFrames
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskim.api import compare, reduce
    from daskim.results import FinishedRun, open_run

__version__ = "0.1.0"
__all__ = ["FinishedRun", "__version__", "compare", "open_run", "reduce"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `--help` does not wait for Dask."""
    if name in ("compare", "reduce"):
        from daskim import api

        return getattr(api, name)
    if name in ("FinishedRun", "open_run"):
        from daskim import results

        return getattr(results, name)
    raise AttributeError(f"module 'daskim' has no attribute {name!r}")
