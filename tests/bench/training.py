"""What a reduction costs a model: test accuracy after training on all images, the reduced set, random subsets.

A small convolutional net (about 160,000 weights) learns CIFAR-10 train for a few epochs, several seeds each, on

    all         every training image
    reduced     those that `--method similarity` keeps, by default settings
    random      as many, drawn at random
    half        what Algorithm 1 keeps, class by class, of half as many clusters as images, without verification
    random half as many, drawn at random

and is tested on all test images, and on those without a near-duplicate in train. Every set is trained for as many
steps as all images take, so that a smaller set is only less varied, not less trained. Needs torch, which daskim does
not depend on, and the real images.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import daskim
from tests.bench import Options
from tests.bench.table import Table

SEEDS = 3
EPOCHS = 4
BATCH = 250


def run(options: Options) -> Iterator[Table]:
    """Test accuracies side by side."""
    root = os.environ.get("DASKIM_DATA")
    if not root:
        raise SystemExit("DASKIM_DATA does not name the folder of real data: this benchmark needs CIFAR-10")
    try:
        import torch
    except ImportError:
        raise SystemExit("this benchmark needs torch: pip install torch") from None
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder = Path(root) / "cifar10_jpeg"
    train, test = (sorted(map(str, folder.glob(f"{split}-*.parquet"))) for split in ("train", "test"))
    limit = {"source.limit": 4000} if options.small else {}
    with TemporaryDirectory() as made:
        kept = daskim.reduce(train, run=f"{made}/reduced", settings={"method": "similarity", **limit})
        pure = {
            "clusters.n_clusters": 0.5,
            "clusters.verify": "none",
            "clusters.per_class": True,
            "plan.max_rms": 255.0,
        }
        half = daskim.reduce(train, run=f"{made}/half", settings={**pure, "plan.max_rms": 255.0, **limit})
        both = daskim.reduce([*train, *test], run=f"{made}/both", settings={"method": "similarity"})
        images, labels = _pixels(both, "train"), _labels(both, "train")
        if options.small:
            images, labels = images[: len(kept.plan)], labels[: len(kept.plan)]
        tests = _pixels(both, "test"), _labels(both, "test")
        alone = ~_twins(both)
        sets = {"all": np.arange(len(images)), "reduced": _kept(kept), "half": _kept(half)}
    rows: list[list[Any]] = []
    for name in ("all", "reduced", "random", "half", "random half"):
        found = []
        start = time.perf_counter()
        for seed in range(SEEDS):
            chosen = sets.get(name)
            if chosen is None:
                size = len(sets["half" if name == "random half" else "reduced"])
                chosen = np.random.default_rng(seed).permutation(len(images))[:size]
            steps = (1 if options.small else EPOCHS) * (len(images) // BATCH)
            right = _trained(torch, images[chosen], labels[chosen], tests, steps, seed)
            found.append((100 * right.mean(), 100 * right[alone].mean()))
        whole, apart = ([pair[at] for pair in found] for at in (0, 1))
        rows.append([name, len(chosen), *_spread(whole), *_spread(apart), (time.perf_counter() - start) / SEEDS])
    yield Table(
        "What a reduction costs a model: test accuracy, %",
        {
            "data": "cifar10_jpeg",
            "n": len(images),
            "test images": len(tests[1]),
            "without a twin in train": int(alone.sum()),
            "seeds": SEEDS,
            "epochs of all": EPOCHS,
        },
        [
            "trained on",
            "images",
            "accuracy",
            "lowest to highest",
            "no twin",
            "lowest to highest (no twin)",
            "s a model",
        ],
        rows,
    )


def _spread(values: list[float]) -> tuple[str, str]:
    return f"{statistics.mean(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"


def _pixels(found: daskim.FinishedRun, split: str) -> np.ndarray:
    return found.standard(found.images.loc[found.images["split"] == split, "row"].to_numpy())


def _labels(found: daskim.FinishedRun, split: str) -> np.ndarray:
    labels = np.unique(found.images["label"], return_inverse=True)[1]
    return labels[(found.images["split"] == split).to_numpy()]


def _kept(found: daskim.FinishedRun) -> np.ndarray:
    return np.flatnonzero(found.plan["decision"] == "keep")


def _twins(found: daskim.FinishedRun) -> np.ndarray:
    """Of the test images, those with a near-duplicate in train."""
    split = found.images["split"].to_numpy()
    pairs = found.pairs[found.pairs["similarity"] >= found.summary["similarities"]["min_similarity"]]
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    twin = np.zeros(len(split), dtype=bool)
    for one, other in ((a, b), (b, a)):
        twin[one[(split[one] == "test") & (split[other] == "train")]] = True
    return twin[split == "test"]


def _trained(
    torch: Any, images: np.ndarray, labels: np.ndarray, tests: tuple[np.ndarray, np.ndarray], steps: int, seed: int
) -> np.ndarray:
    """Train a net; which test images it then gets right, shape (tests,), bool."""
    nn = torch.nn
    torch.manual_seed(seed)

    def layer(inputs: int, outputs: int, stride: int) -> list[Any]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    net = nn.Sequential(
        *layer(3, 32, 1), nn.MaxPool2d(2), *layer(32, 64, 1), nn.MaxPool2d(2), *layer(64, 128, 1), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2048, 10),
    )  # fmt: skip
    best = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(best, 0.1, total_steps=steps, pct_start=0.25)
    x, y = _standard(torch, images), torch.from_numpy(labels.astype(np.int64))
    draw = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    net.train()
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.cat([order, torch.randperm(len(x), generator=draw)])
        mine, order = order[:BATCH], order[BATCH:]
        batch = x[mine]
        turned = torch.rand(len(batch), generator=draw) < 0.5
        batch[turned] = batch[turned].flip(3)
        loss = nn.functional.cross_entropy(net(batch), y[mine], label_smoothing=0.05)
        best.zero_grad()
        loss.backward()
        best.step()
        rate.step()
    net.eval()
    with torch.no_grad():
        guess = [net(_standard(torch, tests[0][lo : lo + 500])).argmax(1) for lo in range(0, len(tests[0]), 500)]
    return torch.cat(guess).numpy() == tests[1]


def _standard(torch: Any, images: np.ndarray) -> Any:
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.47) / 0.25
