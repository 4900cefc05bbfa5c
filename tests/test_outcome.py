"""How a command ended: the text file for Prometheus, and the webhook."""

from __future__ import annotations

import json
import re
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daskim.errors import SourceError
from daskim.jobs.compare import main as compare
from daskim.jobs.reduce import main as reduce
from daskim.outcome import Outcome, metrics_text, notify, write_metrics

LINE = re.compile(r'^daskim_[a-z_]+\{[a-z_]+="(?:[^"\\\n]|\\.)*"(?:,[a-z_]+="(?:[^"\\\n]|\\.)*")*\} -?[0-9.e+]+$')


def parsed(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Values by name and labels (without command and run); checks the format on the way."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    assert text.endswith("\n")
    typed: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert line == f"# TYPE {name} gauge"
            assert name not in typed, "the samples of a metric stand together"
            typed.add(name)
            continue
        if line.startswith("# HELP "):
            continue
        assert LINE.match(line), line
        name = line.partition("{")[0]
        assert name in typed
        labels = [
            pair for pair in re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', line) if pair[0] not in ("command", "run")
        ]
        found.setdefault(name.removeprefix("daskim_"), {})[tuple(labels)] = float(line.rpartition(" ")[2])
    return found


class Hook:
    """A webhook on loopback that answers as told, and keeps what it gets."""

    def __init__(self, answers: list[int] | None = None) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers = answers or []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, dict(self.headers), body))
                self.send_response(hook.answers.pop(0) if hook.answers else 204)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-path"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.got]


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    np.savez(folder / "set.npz", images=pixels, labels=np.arange(40) % 2)
    return folder / "set.npz"


SETTINGS = ("--size", "8x8", "--n-clusters", "0.9", "--no-report", "--quiet", "--workers", "1")


class TestCommand:
    def test_finished(self, source: Path, tmp_path: Path, hook: Hook) -> None:
        run, file = tmp_path / 'r"un', tmp_path / "daskim.prom"
        words = [str(source), "--run", str(run), *SETTINGS, "--metrics", str(file), "--notify", hook.url]
        assert reduce(words) == 0
        summary = json.loads((run / "summary.json").read_text())
        (told,) = hook.told
        assert (told["exit_code"], told["finished"], told["error"], told["command"]) == (0, True, None, "reduce")
        assert (told["run"], told["summary"]) == (str(run), summary)
        values = parsed(file.read_text())
        assert values["exit_code"] == {(): 0}
        assert values["images_by_status"][(("status", "ok"),)] == 40
        decided = values["images_by_decision"]
        assert sum(decided.values()) == 40
        assert decided[(("decision", "drop"),)] == summary["n_drop"]
        assert {dict(labels)["stage"] for labels in values["stage_seconds"]} == set(summary["seconds"])
        assert values["last_success_timestamp_seconds"] == values["last_run_timestamp_seconds"]
        assert values["source_bytes"][()] == summary["size"]["bytes"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
        assert 'run="' + str(run).replace('"', '\\"') in file.read_text()

    def test_failed(self, source: Path, tmp_path: Path, hook: Hook) -> None:
        file = tmp_path / "daskim.prom"
        words = ["--run", str(tmp_path / "run"), *SETTINGS, "--metrics", str(file), "--notify", hook.url]
        assert reduce([str(source), *words]) == 0
        success = parsed(file.read_text())["last_success_timestamp_seconds"]
        assert reduce([str(source), *words, "--tau", "100"]) == 7
        values = parsed(file.read_text())
        assert values["exit_code"] == {(): 7}
        assert values["last_success_timestamp_seconds"] == success
        assert "images" not in values
        told = hook.told[1]
        assert (told["exit_code"], told["finished"], told["summary"]) == (7, False, None)
        assert told["error"]["kind"] == "StaleRun"
        assert "columns.tau" in told["error"]["what"]
        assert "--restart" in told["error"]["hint"]

    def test_a_condition_that_is_met_comes_with_the_summary(self, source: Path, tmp_path: Path, hook: Hook) -> None:
        words = [str(source), "--run", str(tmp_path / "run"), *SETTINGS, "--notify", hook.url]
        assert reduce([*words, "--fail-on", "exact>=0"]) == 6
        (told,) = hook.told
        assert (told["exit_code"], told["finished"], told["error"]["kind"]) == (6, True, "ConditionMet")
        assert told["summary"]["n_images"] == 40

    def test_an_interruption(self, source: Path, tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("daskim.api.execute", interrupt)
        file = tmp_path / "daskim.prom"
        words = [str(source), "--run", str(tmp_path / "run"), *SETTINGS]
        assert reduce([*words, "--notify", hook.url, "--metrics", str(file)]) == 130
        assert hook.told[0]["exit_code"] == 130
        assert parsed(file.read_text())["exit_code"] == {(): 130}

    def test_a_preview_tells_nobody(self, source: Path, tmp_path: Path, hook: Hook) -> None:
        words = [str(source), "--run", str(tmp_path / "run"), *SETTINGS, "--notify", hook.url, "--plan"]
        assert reduce([*words, "--metrics", str(tmp_path / "daskim.prom")]) == 0
        assert hook.got == []
        assert list(tmp_path.iterdir()) == []

    def test_compare(self, source: Path, tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DASKIM_NOTIFY", hook.url)
        words = [str(source), str(source), "--run", str(tmp_path / "run"), "--size", "8x8", "--no-report", "--quiet"]
        assert compare([*words, "--similarity", "ssim", "--metrics", str(tmp_path / "m.prom")]) == 0
        assert hook.told[0]["command"] == "compare"
        assert parsed((tmp_path / "m.prom").read_text())["leaked"] == {(): 40}

    def test_what_cannot_be_told_fails_no_run(
        self, source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_room(*_: Any) -> str:
            raise OSError("no room")

        monkeypatch.setattr("daskim.outcome.metrics_text", no_room)
        words = [str(source), "--run", str(tmp_path / "run"), *SETTINGS, "--metrics", str(tmp_path / "m.prom")]
        monkeypatch.setattr("daskim.outcome.WAITS", ())
        assert reduce([*words, "--notify", "http://127.0.0.1:9/secret-path"]) == 0
        error = capfd.readouterr().err
        assert "--metrics" in error
        assert "no room" in error
        assert "--notify: not sent: http://127.0.0.1" in error
        assert "secret-path" not in error
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--notify", "https://user:word@host/x"], "--notify https://...@host: a user or password"),
            (["--notify", "https://user@host/x"], "a user or password"),
            (["--notify", "file:///etc/passwd"], "Write https://host/path"),
            (["--notify", "ftp://host/x"], "Write https://host/path"),
            (["--notify", "http:///x"], "Write https://host/path"),
            (["--notify", "http://host:port/x"], "Write https://host/path"),
            (["--notify", "http://host/a b"], "Write https://host/path"),
            (["--metrics", "/nowhere/at/all.prom"], "directory that is there"),
            (["--metrics", "/"], "directory that is there"),
            (["--metrics", ""], "directory that is there"),
        ],
    )
    def test_a_wrong_one_is_refused_before_any_work(
        self, words: list[str], said: str, source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert reduce([str(source), "--run", str(tmp_path / "run"), *words]) == 2
        error = capfd.readouterr().err
        assert said in error
        assert "user:word" not in error
        assert not (tmp_path / "run").exists()


def outcome(**more: Any) -> Outcome:
    return Outcome(**{"command": "reduce", "run": "/r", "exit_code": 0, "seconds": 1.0, "ended": 5.0, **more})


class TestNotify:
    def send(self, hook: Hook, **more: Any) -> tuple[str, list[float]]:
        waited: list[float] = []
        return notify(outcome(), hook.url, sleep=waited.append, **more), waited

    def test_as_json(self, hook: Hook) -> None:
        assert self.send(hook) == ("", [])
        path, headers, _ = hook.got[0]
        assert path == "/secret-path"
        assert headers["Content-Type"] == "application/json"
        assert "Authorization" not in headers

    def test_what_fails_for_the_moment_is_tried_again(self, hook: Hook) -> None:
        hook.answers = [503, 429, 200]
        assert self.send(hook) == ("", [1.0, 4.0])
        assert len(hook.got) == 3

    def test_but_not_for_ever(self, hook: Hook) -> None:
        hook.answers = [500] * 9
        assert self.send(hook)[0] == "http://127.0.0.1 answers 500"
        assert len(hook.got) == 3

    @pytest.mark.parametrize("status", [400, 404, 302])
    def test_a_refusal_is_final_and_a_redirection_one_too(self, hook: Hook, status: int) -> None:
        hook.answers = [status] * 9
        assert self.send(hook) == (f"http://127.0.0.1 answers {status}", [])
        assert len(hook.got) == 1

    def test_one_that_does_not_answer(self) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as deaf:
            said = notify(outcome(), f"http://127.0.0.1:{deaf.getsockname()[1]}/secret-path", timeout=0.2, waits=())
        assert "time" in said.lower()
        assert "secret-path" not in said


def test_errors_of_any_kind_have_a_record() -> None:
    told = outcome(exit_code=1, error=ZeroDivisionError("by nought")).record()["error"]
    assert told == {"kind": "ZeroDivisionError", "what": "by nought", "hint": ""}
    assert outcome(exit_code=4, error=SourceError("a", "b")).record()["error"]["hint"] == "b"


def test_names_that_are_no_text_do_not_break_the_format(tmp_path: Path) -> None:
    odd = outcome(run='/r\n"\\\udcff', summary={"status": {"o\nk": 1}, "size": {"bytes": 10**15}})
    values = parsed(metrics_text(odd))
    assert values["source_bytes"] == {(): 10**15}
    write_metrics(odd, str(tmp_path / "m.prom"))
    again = parsed(metrics_text(outcome(run=odd.run, exit_code=4), (tmp_path / "m.prom").read_text()))
    assert again["last_success_timestamp_seconds"] == {(): 5.0}
    assert "last_success_timestamp_seconds" not in parsed(metrics_text(outcome(exit_code=4), "rubbish\n"))
