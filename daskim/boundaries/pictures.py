"""The images of a run at the size that a model sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskim.lake import quiet_native_stderr, standardise
from daskim.models import Prepared
from daskim.reading import standard_spec
from daskim.results import FinishedRun
from daskim.statuses import READABLE

__all__ = ["Pictures"]


class Pictures:
    """Images in grey levels, float32: the run's standard images where they are what the model sees, else read again.

    Attributes
    ----------
    changed : int
        Images read again that are no longer those that the run was made of (counted each time they are read): left out
        where the listing tells, and looked at as they are now where only their bytes do.
    """

    def __init__(self, run: FinishedRun, how: Prepared, storage_options: Mapping[str, Any] | None) -> None:
        self.run, self.shape, self.options = run, how.shape, storage_options
        self.changed = 0
        images = run.table("images", ["row", "status", "file_digest"]).sort_values("row")
        self._good = images["status"].isin(READABLE).to_numpy()
        self._digests = images["file_digest"].to_numpy()
        facts, settings = run.summary["size"], run.settings.images
        self.again = how.shape != (facts["height"], facts["width"], facts["channels"])
        spec = standard_spec(settings, how.height, how.width)
        self._spec = replace(spec, mode=how.mode, fit=settings.fit, flat_std=0.0)

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Images `rows` (ascending): shape (len(rows), h, w, c), and whether each could be read; zeros where not."""
        good = self._good[rows]
        if not self.again:
            return self.run.standard(rows).astype(np.float32), good
        out = np.zeros((len(rows), *self.shape), dtype=np.float32)
        with quiet_native_stderr():
            for index, raw in zip(np.flatnonzero(good).tolist(), self.run.originals(rows[good], self.options)):
                found = standardise(raw, self._spec)
                good[index] = found.pixels is not None
                self.changed += found.status == "changed"
                if found.pixels is not None:
                    out[index] = found.pixels
                    self.changed += found.file_digest != self._digests[rows[index]]
        return out, good
