"""Several hosts: namespaces with addresses of their own, TLS between them, and one that is cut off in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from host_network import Host, hosts, refuse_without_network

from daskim.compute.tls import certificate_files, make_certificates
from daskim.jobs.reduce import main

Planted = Callable[..., tuple[Path, np.ndarray]]
PORT = 8786
# Dask closes a connection after so long without an acknowledgement. 30 s is its default; 11 s the least it takes.
LOST = 11


class Cluster:
    """A scheduler on the first host, a worker each on the second and third; the fourth is for the driver."""

    def __init__(self, network: list[Host], certificates: Path, opened: ExitStack, logs: Path) -> None:
        self.hosts = network
        self.address = f"tls://{network[0].address}:{PORT}"
        ca, cert, key = (str(certificates / name) for name in ("ca.crt", "tls.crt", "tls.key"))
        self.options = ["--tls-ca", ca, "--tls-cert", cert, "--tls-key", key]
        quiet = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        server = ["--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key, "--protocol", "tls", *quiet]
        scheduler = ["dask_scheduler", "--host", network[0].address, "--port", str(PORT)]
        self._start(network[0], [*scheduler, *server], opened, logs / "scheduler")
        for host in network[1:3]:
            words = ["dask_worker", self.address, "--host", host.address, "--nthreads", "1"]
            words += ["--local-directory", str(logs), "--death-timeout", "60", *server]
            self._start(host, words, opened, logs / host.name)

    def _start(self, host: Host, words: list[str], opened: ExitStack, log: Path) -> None:
        environment = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{LOST}s", "OMP_NUM_THREADS": "1"}
        with log.open("wb") as file:
            process = subprocess.Popen(
                host.command(sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:]),
                env=environment,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
            )
        opened.callback(process.wait, 20)
        opened.callback(process.terminate)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    refuse_without_network()
    with ExitStack() as opened:
        certificates = opened.enter_context(certificate_files(make_certificates()))
        network = opened.enter_context(hosts(4))
        logs = tmp_path / "logs"
        logs.mkdir()
        yield Cluster(network, certificates, opened, logs)


@pytest.mark.slow
def test_a_host_that_is_cut_off_costs_its_work_and_changes_nothing(
    cluster: Cluster, planted: Planted, tmp_path: Path
) -> None:
    images = str(planted(2000)[0])
    blocks = ["--set", "blocks.rows=50", "--no-report", "--quiet"]
    words = [images, "--run", tmp_path / "run", *blocks, "--cluster", f"address:{cluster.address}", *cluster.options]
    driver = subprocess.Popen(
        cluster.hosts[3].command(sys.executable, "-W", "error", "-m", "daskim.jobs.reduce", *words, "--workers", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{LOST}s"},
    )
    marks = tmp_path / "run" / "state" / "images" / "blocks"
    until = time.monotonic() + 90
    while not marks.exists() or len(os.listdir(marks)) < 5:
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)
    cluster.hosts[2].cut()
    done = len(os.listdir(marks))
    _, told = driver.communicate(timeout=200)
    assert driver.returncode == 0, told
    assert done < 40, "all blocks were done before the cut"

    assert main([images, "--run", str(tmp_path / "threads"), *blocks]) == 0
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("run", "threads")]
    assert summaries[0]["plan_hash"] == summaries[1]["plan_hash"]
    assert summaries[0]["seconds"]["images"] > LOST / 2  # the work of the lost host was waited for, and done elsewhere
