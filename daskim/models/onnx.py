"""The only door to onnxruntime: a classifier of images in an ONNX file, run on the CPU.

onnxruntime sends usage data and keeps a device id in the user's cache unless it is told not to before it is imported:
here it is always told. https://onnxruntime.ai/docs/api/python/api_summary.html
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from daskim.errors import BlockFailed, SettingsError, SourceError
from daskim.models.preprocessing import Wanted

__all__ = ["OnnxModel"]

TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}
SCORES = ("tensor(float)", "tensor(float16)", "tensor(double)")
# What skl2onnx makes of predict_proba by default: a list with a map from class to probability for each image.
ZIPMAPS = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")


def _runtime() -> Any:
    """onnxruntime, with its telemetry switched off.

    Raises
    ------
    SettingsError
        It is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError:
        raise SettingsError(
            "an ONNX model needs onnxruntime, which is not installed", 'pip install "daskim[onnx]"'
        ) from None
    onnxruntime.disable_telemetry_events()  # where somebody else had imported it before
    return onnxruntime


@lru_cache(maxsize=2)
def _session(path: str, mtime: int) -> Any:
    """A session of the file as it is now; sessions cannot be pickled, so each process makes its own."""
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is told as an error
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of its own, that differ between versions
        raise SettingsError(f"--model {path}: no ONNX model ({_first(error)})", "Export it again as ONNX.") from None


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class OnnxModel:
    """A classifier in an ONNX file.

    Parameters
    ----------
    name : str
        Path of a local file.
    output : str, optional
        Its output that holds the scores; by default the only one of shape (batch, classes), or scikit-learn's list of
        maps from class to probability (ZipMap).

    Attributes
    ----------
    wants : Wanted
        Shape and type of its input; names in a shape (`batch`, `N`) are open sides.

    Raises
    ------
    SettingsError
        onnxruntime is not installed; or the file is no classifier of images: says what it is.
    SourceError
        There is no such file.
    """

    def __init__(self, name: str, output: str | None = None) -> None:
        self.name, self._output = name, output
        self._path = os.path.abspath(name)
        if "://" in name:
            raise SettingsError(f"--model {name}: a model must be a local file", "Copy it here first.")
        if not Path(self._path).is_file():
            raise SourceError(f"--model {name}: no such file", "Give a trained classifier as FILE.onnx.")
        self._mtime = os.stat(self._path).st_mtime_ns
        session = _session(self._path, self._mtime)
        self._input, self.wants = _input(name, session.get_inputs())
        self._scores = _scores(name, session.get_outputs(), output)
        self._batch = self.wants.shape[0] if self.wants.shape else None

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxModel, (self._path, self._output)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if self._batch is None:
            return self._run(images)
        parts = [self._run(images[at : at + self._batch]) for at in range(0, len(images), self._batch)]
        return np.concatenate(parts)

    def _run(self, images: np.ndarray) -> np.ndarray:
        count = len(images)
        if self._batch is not None and count < self._batch:  # a fixed batch is filled up with its last image
            images = np.concatenate([images, np.repeat(images[-1:], self._batch - count, axis=0)])
        try:
            (found,) = _session(self._path, self._mtime).run([self._scores], {self._input: images})
        except SettingsError:
            raise
        except Exception as error:  # classes of its own, that differ between versions
            raise BlockFailed(
                f"--model {self.name}: failed on a batch of shape {images.shape}, {images.dtype} ({_first(error)})",
                f"It wants a batch of {self.wants}; do --size, --mode and --layout fit it?",
            ) from None
        if isinstance(found, list):
            found = _unzipped(found)
        return np.asarray(found)[:count]


def _input(name: str, inputs: list[Any]) -> tuple[str, Wanted]:
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise SettingsError(
            f"--model {name}: has {len(inputs)} inputs ({names})", "A classifier here has one input: the images."
        )
    entry = inputs[0]
    if entry.type not in TYPES:
        raise SettingsError(
            f"--model {name}: input {entry.name} is {entry.type}", f"Images can be given as {', '.join(TYPES)}."
        )
    shape = None
    if entry.shape is not None:
        shape = tuple(side if isinstance(side, int) and side > 0 else None for side in entry.shape)
    return entry.name, Wanted(shape or None, TYPES[entry.type])


def _scores(name: str, outputs: list[Any], asked: str | None) -> str:
    """The name of the output that holds the scores."""
    told = ", ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in outputs)
    fitting = [entry.name for entry in outputs if entry.type in ZIPMAPS or _is_table(entry)]
    if asked is not None:
        if asked not in [entry.name for entry in outputs]:
            raise SettingsError(f"--output {asked}: {name} has no such output", f"It has: {told}.")
        if asked not in fitting:
            raise SettingsError(f"--output {asked}: no scores of shape (batch, classes)", f"{name} has: {told}.")
        return asked
    if not fitting:
        raise SettingsError(
            f"--model {name}: no output holds scores of shape (batch, classes)",
            f"It has: {told}. Export probabilities or logits, not labels.",
        )
    if len(fitting) > 1:
        raise SettingsError(
            f"--model {name}: {len(fitting)} outputs may be the scores", f"Add --output {' or '.join(fitting)}."
        )
    return str(fitting[0])


def _is_table(entry: Any) -> bool:
    """Numbers in (batch, classes); a shape that is not told may be that."""
    return entry.type in SCORES and (not entry.shape or len(entry.shape) == 2)


def _unzipped(rows: list[dict[Any, float]]) -> np.ndarray:
    """scikit-learn's maps from class to probability as (b, k), columns by class."""
    classes = sorted(rows[0])
    return np.array([[row[name] for name in classes] for row in rows], dtype=np.float64)
