"""An image that ends its process, or never ends, is found and left out; the others come out as ever."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pictures import encode, picture

from daskim.errors import BlockFailed
from daskim.lake import ImageSpec, full_digest, list_images, standardise_block
from daskim.lake import alone as alone_module
from daskim.lake.alone import _Child
from daskim.lake.decode import convert
from daskim.lake.guard import Job, Quarantined, each_image

POISON = Path(__file__).parents[1] / "poison"
SPEC = ImageSpec(16, 16, filter="bilinear", max_seconds=1.5)


def poison(data: bytes, how: str) -> bytes:
    spec = importlib.util.spec_from_file_location("poisons", POISON / "poisons.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return bytes(module.poison(data, how))


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Children decode with the poisons in force; one entry for each that is started."""
    started: list[int] = []
    init = _Child.__init__

    def count(self: Any, request: bytes) -> None:
        started.append(1)
        init(self, request)

    monkeypatch.syspath_prepend(str(POISON))
    monkeypatch.setattr(_Child, "__init__", count)
    yield started
    sys.modules.pop("sitecustomize", None)


@pytest.fixture
def listed(tmp_path: Path) -> Any:
    """`listed(n, {position: how})`: the rows of n PNGs, some of them poisoned."""

    def make(n: int, poisons: dict[int, str]) -> pa.Table:
        for index in range(n):
            data = encode(picture(index, 20, 24))
            (tmp_path / f"{index:03d}.png").write_bytes(poison(data, poisons[index]) if index in poisons else data)
        return list_images([str(tmp_path)]).table

    return make


def expected(rows: pa.Table, lost: set[int]) -> tuple[np.ndarray, list[str]]:
    """What an undisturbed run gives, with nothing at the rows that are lost."""
    pixels, table = standardise_block(rows, SPEC)
    pixels[sorted(lost)] = 0
    return pixels, table["digest"].to_pylist()


def test_it_is_found_and_the_others_come_out_as_ever(listed: Any, children: list[int]) -> None:
    rows = listed(40, {17: "crash"})
    pixels, digests = expected(rows, {17})
    found, table = standardise_block(rows, SPEC, alone=True)
    np.testing.assert_array_equal(found, pixels)
    status = table["status"].to_pylist()
    assert (status[17], status[:17], status[18:]) == ("killed-worker", ["ok"] * 17, ["ok"] * 22)
    assert "SIGSEGV" in table["reason"][17].as_py()
    assert [d for i, d in enumerate(table["digest"].to_pylist()) if i != 17] == digests[:17] + digests[18:]
    whole = standardise_block(rows, SPEC)[1]
    assert table["file_digest"][17] == whole["file_digest"][17], "what it was is known"
    assert table["bytes"][17] == whole["bytes"][17]
    assert len(children) == 3, "to the image, it alone, and the rest"


def test_several_at_the_ends_and_side_by_side(listed: Any, children: list[int]) -> None:
    bad = {0: "crash", 1: "kill", 9: "crash"}
    _, table = standardise_block(listed(10, bad), SPEC, alone=True)
    assert "SIGKILL" in table["reason"][1].as_py()
    assert [i for i, s in enumerate(table["status"].to_pylist()) if s == "killed-worker"] == [0, 1, 9]
    assert len(children) <= 2 * len(bad) + 1


def test_nothing_wrong_costs_one_child(listed: Any, children: list[int]) -> None:
    rows = listed(5, {})
    pixels, _ = expected(rows, set())
    found, table = standardise_block(rows, SPEC, alone=True)
    np.testing.assert_array_equal(found, pixels)
    assert table.equals(standardise_block(rows, SPEC)[1])
    assert len(children) == 1


def test_memory_is_bounded_in_a_child(listed: Any, children: list[int]) -> None:
    pytest.importorskip("resource")
    spec = ImageSpec(16, 16, filter="bilinear", max_pixels=1_000_000, max_seconds=30)
    _, table = standardise_block(listed(3, {1: "eat"}), spec, alone=True)
    assert table["status"].to_pylist() == ["ok", "too-large", "ok"]
    assert "memory" in table["reason"][1].as_py()


def test_what_never_ends_in_a_child_is_killed(listed: Any, children: list[int]) -> None:
    _, table = standardise_block(listed(6, {2: "hang"}), SPEC, alone=True)
    assert table["status"].to_pylist() == ["ok", "ok", "timeout", "ok", "ok", "ok"]
    assert "1.5 s (images.max_seconds)" in table["reason"][2].as_py()


class TestNeverEnding:
    """An image that hangs in the process itself: its thread is left behind, and the rest is done in children."""

    @pytest.fixture
    def gate(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
        from PIL import Image

        gate, real = threading.Event(), Image.open

        def wait(file: Any, *words: Any, **options: Any) -> Any:
            if file.getvalue().endswith(b"daskim-poison:hang"):
                gate.wait(60)
            return real(file, *words, **options)

        monkeypatch.setattr(Image, "open", wait)
        yield gate
        gate.set()
        time.sleep(0.1)  # the thread that was left behind ends

    def test_others_come_out_as_ever(self, listed: Any, children: list[int], gate: threading.Event) -> None:
        rows = listed(30, {12: "hang"})
        before = time.monotonic()
        found, table = standardise_block(rows, SPEC)
        took = time.monotonic() - before
        status = table["status"].to_pylist()
        assert (status[12], set(status) - {"timeout"}) == ("timeout", {"ok"})
        assert 2 * SPEC.max_seconds <= took < 30
        gate.set()
        pixels, _ = expected(rows, {12})
        np.testing.assert_array_equal(found, pixels)

    def test_other_blocks_do_not_wait_for_it(self, listed: Any, children: list[int], gate: threading.Event) -> None:
        rows = listed(20, {0: "hang"})
        ends: dict[str, float] = {}

        def work(name: str, part: pa.Table) -> None:
            standardise_block(part, SPEC)
            ends[name] = time.monotonic()

        threads = [
            threading.Thread(target=work, args=("hanging", rows.slice(0, 10))),
            threading.Thread(target=work, args=("other", rows.slice(10))),
        ]
        start = time.monotonic()
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        for thread in threads:
            thread.join(timeout=60)
        assert ends["other"] - start < SPEC.max_seconds + 5

    def test_a_slow_one_that_ends_in_time_stays(self, listed: Any, children: list[int], gate: threading.Event) -> None:
        threading.Timer(0.4, gate.set).start()
        _, table = standardise_block(listed(4, {1: "hang"}), SPEC)
        assert table["status"].to_pylist() == ["ok"] * 4
        assert children == []


def test_digests_of_full_pixels(listed: Any, children: list[int]) -> None:
    rows = listed(6, {3: "crash"})
    job = Job(full_digest, max_seconds=5)
    found = each_image(rows, job, alone=True)
    assert isinstance(found[3], Quarantined)
    whole = each_image(rows, job)
    assert [d for i, d in enumerate(found) if i != 3] == [d for i, d in enumerate(whole) if i != 3]


def test_reading_that_ends_the_process_is_halved_to_one_image(
    listed: Any, children: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No word of an image before the end: as when a container's library crashes on a row group."""
    rows = listed(64, {})

    def child(rows: pa.Table, job: Any, options: Any, found: list[Any]) -> Any:
        children.append(1)
        if "041.png" in rows["id"].to_pylist():
            return alone_module._End(Quarantined("killed-worker", "SIGSEGV"), False)
        found.extend(rows["id"].to_pylist())
        return None

    monkeypatch.setattr(alone_module, "_one_child", child)
    job = Job(partial(convert, spec=SPEC), 1.0)
    found = each_image(rows, job, alone=True)
    assert found[41] == Quarantined("killed-worker", "SIGSEGV")
    assert [f for i, f in enumerate(found) if i != 41] == [f"{i:03d}.png" for i in range(64) if i != 41]
    assert len(children) <= 3 * np.log2(64)


def test_when_all_images_end_it_it_is_not_for_the_images(listed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone_module, "_MOST_DEATHS", 6)
    monkeypatch.setattr(
        alone_module,
        "_one_child",
        lambda *_: alone_module._End(Quarantined("killed-worker", "decoding it ends the process (SIGILL)"), True),
    )
    with pytest.raises(BlockFailed, match="SIGILL"):
        each_image(listed(20, {}), Job(partial(convert, spec=SPEC), 1.0), alone=True)


def test_a_bug_is_passed_on_and_no_state_of_an_image(listed: Any) -> None:
    rows, job = listed(2, {}), Job(partial(int, "x"), 5.0)
    with pytest.raises(TypeError):
        each_image(rows, job)
    with pytest.raises(RuntimeError, match="in a child process: TypeError"):
        each_image(rows, job, alone=True)
