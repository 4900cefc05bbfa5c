"""Models: ONNX and functions give the same; what a model wants decides; every misfit is told."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from daskim.errors import BlockFailed, DaskimError, SettingsError, SourceError
from daskim.models import Classifier, Preprocessing, Wanted, open_model, prepare, settled
from daskim.models.onnx import OnnxModel

STANDARD = (16, 16), "RGB"
SIDE = 16


def classifier(name: str, **asked: str) -> Classifier:
    model = open_model(name)
    return Classifier(model, settled(Preprocessing(**asked), model.wants, *STANDARD))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (11, SIDE, SIDE, 3)).astype(np.float32)


class TestSameScores:
    def test_the_model_learned_something(self, trained):
        assert trained.accuracy > 0.9

    @pytest.mark.parametrize("name", ["plain", "zipmap", "fixed"])
    def test_onnx_gives_what_scikit_learn_gives(self, trained, images, name):
        expected = trained.model.predict_proba(images.reshape(len(images), -1) / 255)
        found = classifier(trained.file(name))(images)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        assert found.dtype == np.float64

    @pytest.mark.parametrize(("function", "layout"), [("scores", "flat"), ("pixels", "nhwc")])
    def test_a_function_gives_the_same(self, trained, callables, images, function, layout):
        found = classifier(f"{callables}:{function}", layout=layout)(images)
        np.testing.assert_allclose(found, classifier(trained.file("plain"))(images), atol=2e-5)

    def test_models_travel_to_other_processes(self, trained, callables, images):
        for name, asked in ((trained.file("fixed"), {}), (f"{callables}:scores", {"layout": "flat"})):
            here = classifier(name, **asked)
            there = pickle.loads(pickle.dumps(here))
            np.testing.assert_array_equal(there(images), here(images))

    def test_images_of_one_batch_do_not_touch_one_another(self, trained, images):
        fixed = classifier(trained.file("fixed"))
        np.testing.assert_allclose(
            np.concatenate([fixed(images[i : i + 1]) for i in range(11)]), fixed(images), atol=1e-7
        )


class TestPreparation:
    def test_values_and_layouts(self, images):
        asked = {"scale": "1/255", "mean": "0.5,0.4,0.3", "std": "0.2"}
        how = settled(Preprocessing(**asked), Wanted(), *STANDARD)
        expected = (images / 255 - np.array([0.5, 0.4, 0.3])) / 0.2
        np.testing.assert_allclose(prepare(images, how), expected, atol=1e-5)
        assert (how.layout, how.dtype) == ("nhwc", "float32")
        assert how.lowest == pytest.approx(-2.5)
        assert how.highest == pytest.approx(3.5)
        turned = prepare(images, settled(Preprocessing(**asked, layout="nchw", dtype="float64"), Wanted(), *STANDARD))
        np.testing.assert_allclose(turned, expected.transpose(0, 3, 1, 2), atol=1e-5)
        assert turned.dtype == np.float64
        assert turned.flags.c_contiguous

    def test_lines_and_preparation_commute(self, images):
        how = settled(Preprocessing(mean="0.5", std="0.25"), Wanted(), *STANDARD)
        a, b = prepare(images[:5], how), prepare(images[5:10], how)
        np.testing.assert_allclose(prepare(0.3 * images[:5] + 0.7 * images[5:10], how), 0.3 * a + 0.7 * b, atol=1e-5)

    def test_whole_numbers_are_rounded_and_not_scaled(self, images):
        how = settled(Preprocessing(), Wanted((None, 16, 16, 3), "uint8"), *STANDARD)
        assert (how.scale, how.dtype) == (1.0, "uint8")
        np.testing.assert_array_equal(prepare(images + 0.4, how), images)
        assert prepare(images + 9999, how).max() == 255

    @pytest.mark.parametrize(
        ("shape", "asked", "expected"),
        [
            ((None, 3, 224, 224), {}, (224, 224, "RGB", "nchw")),
            ((None, 224, 200, 3), {}, (224, 200, "RGB", "nhwc")),
            ((8, 1, 28, 28), {}, (28, 28, "L", "nchw")),
            ((None, 3, None, None), {}, (16, 16, "RGB", "nchw")),
            ((None, 3, None, None), {"size": "32x24"}, (32, 24, "RGB", "nchw")),
            ((None, 3, None, 40), {}, (16, 40, "RGB", "nchw")),
            ((None, None, None, None), {"layout": "nhwc", "mode": "L"}, (16, 16, "L", "nhwc")),
            ((None, 768), {}, (16, 16, "RGB", "flat")),
            ((None, 256), {}, (16, 16, "L", "flat")),
            ((None, 3072), {"size": "32"}, (32, 32, "RGB", "flat")),
            ((None, None), {}, (16, 16, "RGB", "flat")),
            (None, {"size": "8x9", "layout": "nchw"}, (8, 9, "RGB", "nchw")),
        ],
    )
    def test_what_is_open_comes_from_model_then_run(self, shape, asked, expected):
        how = settled(Preprocessing(**asked), Wanted(shape, "float32"), *STANDARD)
        assert (how.height, how.width, how.mode, how.layout) == expected

    @pytest.mark.parametrize(
        ("shape", "asked", "words"),
        [
            ((None, 3, 224, 224), {"size": "32x32"}, "--size 32x32: the model wants a batch of ?x3x224x224"),
            ((None, 3, 224, None), {"size": "32x32"}, "give 224x32"),
            ((None, 3, 224, 224), {"layout": "nhwc"}, "give nchw"),
            ((None, 3, 224, 224), {"layout": "flat"}, "give nchw"),
            ((None, 3, 224, 224), {"mode": "L"}, "give RGB"),
            ((None, 3, 224, 224), {"dtype": "float64"}, "give float32"),
            ((None, 4, 224, 224), {}, "no batch of images"),
            ((None, 3, 224, 3), {}, "--layout nchw or --layout nhwc"),
            ((None, None, None, None), {}, "--layout nchw or --layout nhwc"),
            ((None, 16, 16), {}, "no batch of images"),
            ((None, 3072), {}, "32x32 (RGB)"),
            ((None, 1000), {}, "--size HxW"),
            (None, {"size": "0x3"}, "--size 0x3"),
            (None, {"size": "3x3x3"}, "224x224"),
            (None, {"size": "²x²"}, "224x224"),
            (None, {"mode": "HSV"}, "Known: L, RGB"),
            (None, {"layout": "nwhc"}, "nhwc"),
            (None, {"dtype": "int8"}, "uint8"),
            (None, {"scale": "0"}, "--scale 1/255"),
            (None, {"scale": "1/0"}, "--scale 1/255"),
            (None, {"scale": "1,2,3"}, "Give one."),
            (None, {"mean": "nan"}, "--mean 0.5"),
            (None, {"mean": "a"}, "--mean 0.5"),
            (None, {"mean": "1,2"}, "Give one or 3."),
            (None, {"std": "0.1,0,0.1"}, "other than 0"),
            (None, {"std": "1e999"}, "not a number"),
        ],
    )
    def test_misfits_say_what_is_wanted(self, shape, asked, words):
        with pytest.raises(SettingsError) as error:
            settled(Preprocessing(**asked), Wanted(shape, "float32"), *STANDARD)
        assert words in str(error.value)


class TestMistakes:
    @pytest.mark.parametrize(
        ("name", "kind", "words"),
        [
            ("nothing.onnx", SourceError, "no such file"),
            ("s3://bucket/x.onnx", SettingsError, "local file"),
            ("told_model", SettingsError, "module:function"),
            ("told_model:", SettingsError, "module:function"),
            (":scores", SettingsError, "module:function"),
            ("told_model:no_such", SettingsError, "no_such"),
            ("told_model:NUMBER", SettingsError, "no function"),
            ("no.such.module:scores", SettingsError, "No module named"),
            ("broken_model:scores", SettingsError, "ValueError: not today"),
            ("told_model:scores;x", SettingsError, "module:function"),
        ],
    )
    def test_names(self, callables, name, kind, words):
        with pytest.raises(kind, match=words):
            open_model(name)

    @pytest.mark.parametrize(
        ("function", "kind", "words"),
        [
            ("wrong_shape", SettingsError, "one row an image"),
            ("one_column", SettingsError, r"\(1 - p, p\)"),
            ("words", SettingsError, "must be numbers"),
            ("nothing", BlockFailed, "from 0 to 1"),
            ("raises", BlockFailed, "RuntimeError"),
        ],
    )
    def test_functions_that_are_no_classifiers(self, callables, images, function, kind, words):
        with pytest.raises(kind, match=words):
            classifier(f"{callables}:{function}")(images)

    def test_files_that_are_no_classifiers(self, tmp_path):
        (tmp_path / "text.onnx").write_text("hello")
        with pytest.raises(SettingsError, match="no ONNX model"):
            OnnxModel(str(tmp_path / "text.onnx"))
        with pytest.raises(SourceError, match="no such file"):
            OnnxModel(str(tmp_path))

    @pytest.mark.parametrize(
        ("kind", "inputs", "outputs", "words"),
        [
            ("float", [("x", [None, 4]), ("y", [None, 4])], [("s", [None, 4])], "2 inputs (x, y)"),
            ("int64", [("x", [None, 4])], [("s", [None, 4])], "tensor(int64)"),
            ("float", [("x", [None, 4])], [("s", [None, 4]), ("t", [None, 4])], "--output s or t"),
            ("float", [("x", [None, 4, 4])], [("s", [None, 4, 4])], "no output holds scores"),
        ],
    )
    def test_graphs_that_are_no_classifiers(self, tmp_path, kind, inputs, outputs, words):
        path = graph(tmp_path, kind, inputs, outputs)
        with pytest.raises(SettingsError) as error:
            open_model(path)
        assert words in str(error.value)

    def test_the_output_is_a_choice(self, tmp_path):
        path = graph(tmp_path, "float", [("x", [None, 4])], [("s", [None, 4]), ("t", [None, 4])])
        model = open_model(path, output="t")
        np.testing.assert_array_equal(model(np.eye(4, dtype=np.float32)), np.eye(4))
        with pytest.raises(SettingsError, match="It has: s "):
            open_model(path, output="u")
        with pytest.raises(SettingsError, match="no ONNX model"):
            open_model("told_model:scores", output="t")

    def test_labels_alone_are_refused(self, trained):
        with pytest.raises(SettingsError, match="no scores of shape"):
            open_model(trained.file("plain"), output="label")

    def test_a_batch_that_the_model_cannot_take(self, trained):
        with pytest.raises(BlockFailed, match=r"It wants a batch of \?x768"):
            open_model(trained.file("plain"))(np.zeros((2, 5), np.float32))


def graph(folder: Path, kind: str, inputs: list, outputs: list) -> str:
    """A graph whose outputs are its first input."""
    from onnx import TensorProto, helper

    element = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64}[kind]
    made = helper.make_graph(
        [helper.make_node("Identity", [inputs[0][0]], [name]) for name, _ in outputs],
        "g",
        [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, element, shape) for name, shape in outputs],
    )
    path = folder / "graph.onnx"
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_without_onnxruntime_it_says_what_to_install(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    from daskim.models.onnx import _session

    _session.cache_clear()
    with pytest.raises(DaskimError) as error:
        open_model(trained.file("plain"))
    assert 'pip install "daskim[onnx]"' in str(error.value)
    assert error.value.exit_code == 2


def test_telemetry_is_off_here_and_in_workers(trained, tmp_path):
    """Nothing is written below HOME, by a process or by one that it starts, whatever the environment said before."""
    code = f"""
        import multiprocessing, os, pickle, sys
        import numpy as np

        def work(text):
            model = pickle.loads(text)
            return float(model(np.zeros((2, 768), np.float32)).sum()), os.environ["ORT_DISABLE_TELEMETRY"]

        if __name__ == "__main__":
            from daskim.models import open_model
            model = open_model({trained.file("plain")!r})
            assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
            del os.environ["ORT_DISABLE_TELEMETRY"]  # a worker elsewhere inherits nothing
            text = pickle.dumps(model)
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                total, off = pool.apply(work, (text,))
            assert off == "1" and abs(total - 2) < 1e-5, (total, off)
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    env = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "XDG_CONFIG_HOME": str(home / ".config")}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []
