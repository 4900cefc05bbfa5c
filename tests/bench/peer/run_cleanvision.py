"""CleanVision's exact and near duplicates, in its own environment: FOLDER OUT.npz; prints JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from itertools import combinations

import numpy as np


def main(folder: str, out: str) -> None:
    start = time.perf_counter()
    from cleanvision import Imagelab

    imported = time.perf_counter()
    lab = Imagelab(data_path=folder, verbose=False)
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    searched = time.perf_counter()
    names = sorted(os.path.relpath(path, folder) for path in lab.issues.index)
    place = {name: at for at, name in enumerate(names)}
    best: dict[tuple[int, int], float] = {}
    for kind, score in (("near_duplicates", 0.5), ("exact_duplicates", 1.0)):
        for group in lab.info.get(kind, {}).get("sets", []):
            members = sorted(place[os.path.relpath(path, folder)] for path in group)
            best.update(dict.fromkeys(combinations(members, 2), score))
    pairs = np.array(list(best), dtype=np.int64).reshape(-1, 2)
    np.savez(out, ids=np.array(names), a=pairs[:, 0], b=pairs[:, 1], scores=np.array(list(best.values())))
    told = {"version": version("cleanvision"), "import": imported - start, "search": searched - imported}
    print(json.dumps({**told, "images": len(names)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
