"""fastdup.run, in its own environment: FOLDER OUT.npz THRESHOLD WORK [FEATURES]; prints JSON.

FEATURES is the WORK of an earlier run over the same folder: then only the search is done. fastdup reports to its makers
unless SENTRY_OPT_OUT is set, which the caller does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from importlib.metadata import version

import numpy as np


def main(folder: str, out: str, threshold: str, work: str, features: str = "") -> None:
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        import fastdup
        import pandas as pd

        imported = time.perf_counter()
        mode = {"run_mode": 2, "input_dir": features} if features else {"input_dir": folder}
        code = fastdup.run(work_dir=work, threshold=float(threshold), **mode)
        searched = time.perf_counter()
    if code:
        raise SystemExit(f"fastdup.run gave code {code}")
    names = sorted(
        os.path.relpath(os.path.join(base, file), folder) for base, _, files in os.walk(folder) for file in files
    )
    place = {name: at for at, name in enumerate(names)}
    under = os.path.basename(folder) + os.sep  # files are told absolute or from the working directory
    pairs = pd.read_csv(os.path.join(work, "similarity.csv"))
    a, b = (pairs[side].map(lambda path: place[path.partition(under)[2]]).to_numpy() for side in ("from", "to"))
    low, high = np.minimum(a, b), np.maximum(a, b)
    once = np.unique(low * len(names) + high, return_index=True)[1]
    np.savez(out, ids=np.array(names), a=low[once], b=high[once], scores=pairs["distance"].to_numpy()[once])
    told = {"version": version("fastdup"), "import": imported - start, "search": searched - imported}
    print(json.dumps({**told, "images": len(names)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
