"""The recipe of the image: what it copies, whom it runs as, what it installs, and whether it tells that it is ill."""

from __future__ import annotations

import fnmatch
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Extras that the image has, as the commands in deploy/README.md name them.
EXTRAS = ("s3", "gcs", "azure", "http", "k8s", "tls")


def instructions() -> list[tuple[str, str]]:
    """(name, rest) of each instruction of the Dockerfile, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text()).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """The requirement and hashes of each distribution of a lock file."""
    found = {}
    text = re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / name).read_text()).replace("\\\n", " ")
    for line in text.splitlines():
        words = line.split("--hash=")
        requirement = Requirement(words[0].strip())
        found[canonicalize_name(requirement.name)] = requirement, [word.strip() for word in words[1:]]
    return found


@pytest.mark.parametrize("name", ["requirements.lock", "build.lock"])
def test_a_lock_pins_every_distribution_by_hash(name: str) -> None:
    pins = locked(name)
    assert len(pins) > 5
    for requirement, hashes in pins.values():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), requirement
    assert "://" not in (DEPLOY / name).read_text()


@pytest.mark.parametrize("part", ["dependencies", *EXTRAS, "build"])
def test_a_lock_satisfies_the_bounds_of_the_project(part: str) -> None:
    pins = locked("build.lock" if part == "build" else "requirements.lock")
    wanted = {
        "dependencies": PROJECT["project"]["dependencies"],
        "build": PROJECT["build-system"]["requires"],
        **{extra: PROJECT["project"]["optional-dependencies"][extra] for extra in EXTRAS},
    }[part]
    assert wanted
    for text in wanted:
        requirement = Requirement(text)
        pin = pins[canonicalize_name(requirement.name)][0]
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{text}: {version} is locked; renew it (deploy/README.md)"


def test_the_readme_renews_what_the_image_installs() -> None:
    text = (DEPLOY / "README.md").read_text()
    command = next(line for line in text.splitlines() if "uv pip compile pyproject.toml" in line)
    assert tuple(re.findall(r"--extra (\w+)", command)) == EXTRAS
    assert "--generate-hashes" in command


def test_the_image_is_of_one_base_that_may_be_pinned() -> None:
    froms = [rest.split() for name, rest in instructions() if name == "FROM"]
    assert len(froms) == 2
    assert {words[0] for words in froms} == {"${BASE}"}
    base = next(rest for name, rest in instructions() if name == "ARG" and rest.startswith("BASE="))
    python = re.search(r"python:(\d+\.\d+)-slim", base)
    assert python is not None
    compiled = re.findall(r"--python-version (\S+)", (DEPLOY / "README.md").read_text())
    assert set(compiled) == {python[1]}


def test_the_image_does_not_run_as_root_and_writes_below_tmp_only() -> None:
    last = max(index for index, (name, _) in enumerate(instructions()) if name == "FROM")
    final = instructions()[last:]
    user = next(rest for name, rest in final if name == "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    env = dict(word.split("=", 1) for name, rest in final if name == "ENV" for word in rest.split())
    for name in ("HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        assert env[name] == "/tmp" or env[name].startswith("/tmp/")
    assert env["OMP_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == "1"
    assert not [rest for name, rest in final if name == "RUN"]
    assert dict(final)["ENTRYPOINT"] == "[]"  # else `dask worker`, given as arguments, would be its arguments


def test_installs_are_by_hash_or_from_nowhere() -> None:
    installs = [
        part for name, rest in instructions() if name == "RUN" for part in rest.split("&&") if "pip install" in part
    ]
    assert len(installs) == 3
    for part in installs:
        assert "--require-hashes" in part or "--no-index" in part
        assert "--no-deps" in part


def test_what_is_copied_is_there_and_nothing_else_is_sent() -> None:
    sources = [
        word for name, rest in instructions() if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    ]
    assert sources
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source
    assert set(sources) == set(allowed)


def test_a_scheduler_and_a_worker_answer_for_their_health(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    health = runpy.run_path(str(DEPLOY / "health.py"))
    page = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, processes=False, protocol="tcp://", host="127.0.0.1", **page) as cluster:
        served = {"scheduler": cluster.scheduler, "worker": next(iter(cluster.workers.values()))}
        for name, server in served.items():
            port = server.http_server.port
            assert health["verdict"](["python", "/opt/daskim/bin/dask", name, "--nthreads", "1"], [port]) == ""
            comm = int(server.address.rpartition(":")[2]) if server.address.startswith("tcp") else None
            if comm is not None:  # its protocol is no HTTP, which must not be taken for health
                assert f"dask {name}" in health["verdict"](["/opt/daskim/bin/dask", name], [comm])
    assert "no answer" in health["verdict"](["/opt/daskim/bin/dask", "worker"], [])
    assert health["verdict"](["python", "-m", "daskim.jobs.reduce", "s3://lake"], []) == ""


def test_ports_that_are_listened_on_are_found(tmp_path: Path) -> None:
    import socket

    health: dict[str, Any] = runpy.run_path(str(DEPLOY / "health.py"))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        tables = [Path("/proc/net/tcp"), tmp_path / "missing"]
        if not tables[0].is_file():
            pytest.skip("no /proc/net/tcp here")
        assert port not in health["listening_ports"](tables)
        server.listen()
        assert port in health["listening_ports"](tables)
