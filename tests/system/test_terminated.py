"""SIGTERM ends a run as Ctrl-C does: cleanly, with a word that it goes on, and with an exit code of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from daskim.jobs.terminal import Terminated, run_command

SETTINGS = ("--size", "16x16", "--set", "blocks.rows=40", "--no-report", "--json")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["threads", "local"])
def test_a_terminated_run_ends_cleanly_and_goes_on(planted: Any, tmp_path: Path, place: str) -> None:
    source, _ = planted(400, 16, redundancy=0.2, seed=3)
    words = [sys.executable, "-m", "daskim.jobs.reduce", str(source), "--run", str(tmp_path), "--cluster", place]
    words += ["--workers", "2", *SETTINGS]
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any((tmp_path / "state" / "images" / "blocks").glob("*.json")):
        assert time.monotonic() < deadline
        assert driver.poll() is None
        time.sleep(0.005)
    workers = psutil.Process(driver.pid).children(recursive=True)
    for _ in range(3):  # later ones do not disturb the clean end
        driver.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 143
    assert "terminated: finished blocks are kept; the same command goes on" in err
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["kind"] == "Terminated"
    assert not psutil.wait_procs(workers, timeout=10)[1]
    if place == "local":
        return
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["blocks"]["images"]["resumed"] > 0


def test_the_handler_is_there_only_while_a_command_works() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def end() -> int:
        assert signal.getsignal(signal.SIGTERM) is not before
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it was not ended")

    assert run_command(lambda: 0, as_json=False) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    try:
        assert run_command(end, as_json=False) == 143
        signal.raise_signal(signal.SIGTERM)  # a process that says its last words is not disturbed
    finally:
        signal.signal(signal.SIGTERM, before)
    assert issubclass(Terminated, KeyboardInterrupt)


class Finalized:
    """Gets a signal while it is finalized, where Python drops what the handler raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_comes_in_a_finalizer_is_not_lost(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def work() -> int:
        Finalized(number)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            time.sleep(0.01)
        raise AssertionError("the signal was lost")

    hook = sys.unraisablehook
    try:
        assert run_command(work, as_json=False) == code
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert sys.unraisablehook is hook
    assert "ignored" not in capsys.readouterr().err


def test_in_another_thread_a_command_runs_without_it() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run_command(lambda: 0, as_json=False)))
    thread.start()
    thread.join()
    assert codes == [0]
