"""Trained classifiers: one file a kind of model. What a model wants to see is `daskim.models.preprocessing`.

A model is a callable that takes prepared images and gives (b, k) scores, probabilities or logits, one column a class;
higher is more. `open_model` reads how it is named on the command line: a file `*.onnx`, or `module:function`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from daskim.errors import BlockFailed, SettingsError
from daskim.models.preprocessing import Prepared, Preprocessing, Wanted, prepare, settled

__all__ = ["Classifier", "Model", "Prepared", "Preprocessing", "Wanted", "open_model", "prepare", "settled"]


class Model(Protocol):
    """A trained classifier.

    Attributes
    ----------
    name : str
        As it was given.
    wants : Wanted
        What it says of its input; unknown things are None.
    """

    name: str
    wants: Wanted

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Scores (b, k) of prepared images, b as it comes: a model of a fixed batch fills up by itself."""
        ...


def open_model(name: str, output: str | None = None) -> Model:
    """The model of a name: a file ending in .onnx, or `module:function`, which imports that module.

    Parameters
    ----------
    output : str, optional
        Which output of an ONNX model holds the scores, where it has several that might.

    Raises
    ------
    SettingsError
        No such model, or one that is no classifier of images.
    """
    if name.lower().endswith(".onnx"):
        from daskim.models.onnx import OnnxModel

        return OnnxModel(name, output)
    if output is not None:
        raise SettingsError(f"--output {output}: {name} is no ONNX model", "Leave --output out.")
    if ":" in name and "/" not in name:
        from daskim.models.python import PythonModel

        return PythonModel(name)
    raise SettingsError(
        f"--model {name}: neither a file ending in .onnx nor module:function",
        "Give a trained classifier as FILE.onnx, or a Python function as package.module:function.",
    )


class Classifier:
    """A model together with how images are prepared for it: (b, h, w, c) grey levels -> (b, k) float64, checked.

    Attributes
    ----------
    calls : int
        Images that were classified so far.
    classes : int
        k; 0 before the first call.
    """

    def __init__(self, model: Model, prepared: Prepared) -> None:
        self.model = model
        self.prepared = prepared
        self.calls = 0
        self.classes = 0

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        scores = np.asarray(self.model(prepare(images, self.prepared)))
        name = self.model.name
        if scores.ndim != 2 or len(scores) != len(images):
            raise SettingsError(
                f"--model {name}: gives an array of shape {scores.shape} for {len(images)} images",
                "It must give one row an image and one column a class.",
            )
        if scores.shape[1] < 2:
            raise SettingsError(
                f"--model {name}: gives one score an image",
                "It must give a score for each class. A model of two classes with one output p can give (1 - p, p).",
            )
        if scores.dtype.kind not in "fiub":
            raise SettingsError(f"--model {name}: gives values of type {scores.dtype}", "Scores must be numbers.")
        self.classes = self.classes or scores.shape[1]
        if scores.shape[1] != self.classes:
            raise SettingsError(
                f"--model {name}: gives {scores.shape[1]} classes, and gave {self.classes} before",
                "The number of classes must not depend on the images.",
            )
        if not np.isfinite(scores).all():
            raise BlockFailed(
                f"--model {name}: gives scores that are not finite",
                "Does --scale fit? The model saw values from "
                f"{self.prepared.lowest:g} to {self.prepared.highest:g} on this scale.",
            )
        self.calls += len(images)
        return scores.astype(np.float64)
