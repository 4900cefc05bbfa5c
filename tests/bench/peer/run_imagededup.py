"""imagededup's hashes, in its own environment: FOLDER OUT.npz HASH DISTANCE; prints JSON lines.

OUT.npz gets the hashes. The package imports its network, and thereby torch, with its hashes. Where torch is not
installed, empty modules stand in for what needs it; the hashes do not touch that.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

import numpy as np


def without_network() -> None:
    for name, what in (
        ("methods.cnn", "CNN"),
        ("utils.data_generator", "img_dataloader"),
        ("utils.models", "CustomModel"),
    ):
        stand_in = ModuleType(f"imagededup.{name}")
        setattr(stand_in, what, None)
        sys.modules[stand_in.__name__] = stand_in


def main(folder: str, out: str, name: str, distance: str) -> None:
    start = time.perf_counter()
    if find_spec("torch") is None:
        without_network()
    from imagededup import methods

    logging.disable(logging.INFO)
    imported = time.perf_counter()
    hasher = getattr(methods, name)(verbose=False)
    hashes = hasher.encode_images(image_dir=folder, recursive=True)
    encoded = time.perf_counter()
    np.savez(out, ids=np.array(list(hashes)), hashes=np.array([int(text, 16) for text in hashes.values()], np.uint64))
    told = {"version": version("imagededup"), "import": imported - start, "hash": encoded - imported}
    told["images"] = len(hashes)
    print(json.dumps(told), flush=True)  # the search may be ended from outside: it takes a step of Python for each pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the number of processes for hashing does not matter any more
        found = hasher.find_duplicates(encoding_map=hashes, max_distance_threshold=int(distance))
    told["pairs"] = sum(map(len, found.values())) // 2  # each is listed from both of its images
    print(json.dumps({**told, "search": time.perf_counter() - encoded}))


if __name__ == "__main__":
    main(*sys.argv[1:])
