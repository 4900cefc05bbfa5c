"""A real small model, trained here on real pictures, and a run to take pairs from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

import daskim

SIDE = 16
KINDS = {"coffee": "coffee", "rocket": "rocket", "chelsea": "cat"}


def crops(name: str, count: int, seed: int) -> np.ndarray:
    """Pieces of one photograph, (count, SIDE, SIDE, 3) u1."""
    rng = np.random.default_rng(seed)
    whole = np.asarray(Image.fromarray(getattr(photographs, name)()[..., :3]).resize((120, 90)))
    found = []
    while len(found) < count:
        side = int(rng.integers(28, 44))
        top, left = (int(rng.integers(edge - side)) for edge in whole.shape[:2])
        piece = Image.fromarray(whole[top : top + side, left : left + side]).resize((SIDE, SIDE))
        if np.asarray(piece).std(axis=(0, 1)).max() > 8:
            found.append(np.asarray(piece))
    return np.stack(found)


@dataclass(frozen=True)
class Trained:
    """scikit-learn's PCA and logistic regression on flat pixels in [0, 1], and what it is as ONNX.

    `zipmap` keeps skl2onnx's default output, `fixed` takes four images at a time.
    """

    model: Any
    folder: Path
    accuracy: float

    def file(self, name: str) -> str:
        return str(self.folder / f"{name}.onnx")


def planted() -> tuple[np.ndarray, list[str]]:
    """Crops of three photographs; of each label some copies with noise, and one copy under another label."""
    rng = np.random.default_rng(5)
    images, labels = [], []
    for index, (name, label) in enumerate(KINDS.items()):
        own = crops(name, 40, index)
        copies = np.clip(own[:12] + rng.normal(0, 3, own[:12].shape), 0, 255).round().astype(np.uint8)
        images += [own, copies, own[:1]]
        labels += [label] * 53
    wrong = np.clip(images[0][20:26] + rng.normal(0, 3, (6, SIDE, SIDE, 3)), 0, 255).round().astype(np.uint8)
    return np.concatenate([*images, wrong]), [*labels, *["rocket"] * 6]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained on other crops than those of the run."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    x, y, unseen, truth = [], [], [], []
    for index, (name, label) in enumerate(KINDS.items()):
        x.append(crops(name, 120, 100 + index))
        unseen.append(crops(name, 60, 200 + index))
        y += [label] * 120
        truth += [label] * 60
    flat = [np.concatenate(part).reshape(-1, SIDE * SIDE * 3).astype(np.float32) / 255 for part in (x, unseen)]
    model = make_pipeline(PCA(12, random_state=0), LogisticRegression(max_iter=1000)).fit(flat[0], y)
    folder = tmp_path_factory.mktemp("models")
    made = Trained(model, folder, float(model.score(flat[1], truth)))
    for name, zipmap, batch in (("plain", False, None), ("zipmap", True, None), ("fixed", False, 4)):
        kind = [("X", FloatTensorType([batch, flat[0].shape[1]]))]
        onnx = to_onnx(model, initial_types=kind, options={id(model): {"zipmap": zipmap}})
        Path(made.file(name)).write_bytes(onnx.SerializeToString())
    return made


@pytest.fixture(scope="session")
def callables(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The module `told_model`: `scores` is the trained model, the others are mistakes."""
    import joblib

    folder = tmp_path_factory.mktemp("code")
    joblib.dump(trained.model, folder / "model.joblib")
    (folder / "told_model.py").write_text(
        f"""
import joblib, numpy as np
MODEL = joblib.load({str(folder / "model.joblib")!r})
NUMBER = 3
def scores(batch):
    return MODEL.predict_proba(batch)
def pixels(batch):
    return scores(batch.reshape(len(batch), -1))
def wrong_shape(batch):
    return np.zeros(len(batch))
def one_column(batch):
    return np.zeros((len(batch), 1))
def words(batch):
    return np.full((len(batch), 2), "a")
def nothing(batch):
    return np.full((len(batch), 2), np.nan)
def raises(batch):
    raise RuntimeError("no \\x1b[31mred here")
""",
        encoding="utf-8",
    )
    (folder / "broken_model.py").write_text("raise ValueError('not today')\n", encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield "told_model"
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of method similarity, by plain SSIM, over a folder with hostile names."""
    folder = tmp_path_factory.mktemp("pictures")
    images, labels = planted()
    for index, (pixels, label) in enumerate(zip(images, labels)):
        (folder / label).mkdir(exist_ok=True)
        name = HOSTILE if index == 0 else f"{index:03d}.png"
        Image.fromarray(pixels).save(folder / label / name)
    (folder / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    run = tmp_path_factory.mktemp("run") / "run"
    settings = {
        "method": "similarity",
        "images.size": f"{SIDE}x{SIDE}",
        "similarities.name": "ssim",
        "similarities.min_similarity": 0.7,
        "candidates.method": "all",
    }
    daskim.reduce(folder, run=run, settings=settings, workers=1)
    return run


HOSTILE = "\x1b[31m<b>&'\"\u202e,000.png"
