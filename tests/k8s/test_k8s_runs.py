"""Runs on a cluster that the Dask operator makes: from outside and from Jobs, undisturbed and disturbed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_site import Site, until

pytestmark = [
    pytest.mark.slow,
    # kr8s closes its connections when the process ends
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
OF_CLUSTERS = "dask.org/cluster-name"


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(site: Site) -> Iterator[None]:
    """After all tests: whatever they did to drivers, operator and owners have removed every cluster."""
    yield
    # The operator may take a minute for a cluster whose scheduler never ran.
    until(lambda: not site.clusters(), 100, "all DaskClusters are gone")
    until(lambda: not site.find("pods", OF_CLUSTERS), 40, "all pods of clusters are gone")
    assert not site.find("services", OF_CLUSTERS)
    assert not site.find("deployments", OF_CLUSTERS)


def at_work(site: Site, run: str, driver: subprocess.Popen[str] | None = None) -> None:
    """Until a run has finished its first stages on the cluster."""

    def begun() -> bool:
        assert driver is None or driver.poll() is None, driver.communicate()
        return site.exists(run, "state", "images", "sealed.json")

    until(begun, 90, f"run {run} is at work")


def job_status(site: Site, name: str) -> dict[str, Any]:
    found = site.find("jobs", name=name)
    return found[0].get("status", {}) if found else {}


def test_from_outside_the_plan_is_that_of_a_laptop(site: Site, plan_hash: str) -> None:
    driver = site.start("outside", "--workers", "2", "--json")
    out, err = driver.communicate(timeout=180)
    assert driver.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["plan_hash"] == plan_hash
    assert site.clusters() == []
    until(lambda: not site.find("pods", OF_CLUSTERS), 40, "the pods are gone")


def test_in_a_job_the_plan_is_that_of_a_laptop(site: Site, plan_hash: str) -> None:
    """The pod has the least rights; image and namespace are its own, and the cluster is its property."""
    site.create(site.job("inside", "inside", "--workers", "2"))
    (name,) = until(site.clusters, 60, "a cluster was made")
    (cluster,) = site.find("daskclusters.kubernetes.dask.org", name=name)
    (pod,) = site.find("pods", "job=inside")
    assert [owner["uid"] for owner in cluster["metadata"]["ownerReferences"]] == [pod["metadata"]["uid"]]
    until(lambda: job_status(site, "inside").get("succeeded"), 120, site.log(pod["metadata"]["name"]))
    assert site.summary("inside")["plan_hash"] == plan_hash
    assert site.clusters() == []
    site.delete("jobs", "inside")


def test_an_image_that_is_not_there_is_told_and_nothing_stays(site: Site, source: str) -> None:
    driver = site.start("failed", "--k8s-timeout", "8", image="localhost:1/no-such-image:1")
    _, err = driver.communicate(timeout=90)
    assert driver.returncode == 4, err
    assert "Image" in err
    assert "--k8s-image" in err
    assert "Traceback" not in err
    assert site.clusters(alive=True) == []


def test_a_scheduler_that_ends_is_told_with_its_log(site: Site, source: str, tmp_path: Path) -> None:
    container = {"name": "scheduler", "image": site.image, "args": ["sh", "-c", "echo it is broken; exit 3"]}
    worker = {"containers": [{"name": "worker", "image": site.image}]}
    body = {"worker": {"spec": worker, "replicas": 1}, "scheduler": {"spec": {"containers": [container]}}}
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskCluster", "spec": body}))
    driver = site.start("failed", "--k8s-spec", str(spec), "--k8s-timeout", "10", image="")
    _, err = driver.communicate(timeout=90)
    assert driver.returncode == 4, err
    assert "it is broken" in err
    assert "exit code 3" in err
    assert site.clusters(alive=True) == []


def test_terminated_it_ends_cleanly_and_goes_on(site: Site, plan_hash: str) -> None:
    driver = site.start("terminated", "--workers", "1")
    at_work(site, "terminated", driver)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=100)
    assert driver.returncode == 143, err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert site.clusters(alive=True) == []
    driver = site.start("terminated", "--workers", "1")
    _, err = driver.communicate(timeout=180)
    assert driver.returncode == 0, err
    summary = site.summary("terminated")
    assert summary["plan_hash"] == plan_hash
    assert summary["blocks"]["images"]["computed"] == 0


def test_a_deleted_job_takes_its_cluster_along(site: Site, source: str) -> None:
    site.create(site.job("deleted", "deleted", "--workers", "1"))
    at_work(site, "deleted")
    assert site.clusters(alive=True)
    site.delete("jobs", "deleted", propagation_policy="Background")
    until(lambda: not site.clusters(alive=True), 60, "its cluster goes")
    assert not site.exists("deleted", "summary.json")


def test_a_killed_driver_leaves_its_cluster_to_the_operator(site: Site, source: str, tmp_path: Path) -> None:
    """Outside nothing owns the cluster: the idle time-out ends it, here a short one by a spec."""
    containers = {part: [{"name": part, "image": site.image}] for part in ("scheduler", "worker")}
    body: dict[str, Any] = {part: {"spec": {"containers": item}} for part, item in containers.items()}
    body["idleTimeout"] = 10
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskCluster", "spec": body}))
    driver = site.start("killed", "--k8s-spec", str(spec), image="")
    at_work(site, "killed", driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert site.clusters(alive=True)
    until(lambda: not site.clusters(alive=True), 90, "the operator removes an idle cluster")
