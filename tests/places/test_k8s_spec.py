"""What is asked of the Dask operator, and what is told of pods that do not start; no Kubernetes is needed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed import Client, LocalCluster

from daskim.compute import describe_place, open_place
from daskim.compute.k8s.diagnosis import pod_state, report
from daskim.compute.k8s.quantities import quantity
from daskim.compute.k8s.spec import Asked, described, read_spec, resemble, written_spec
from daskim.errors import SettingsError
from daskim.jobs.reduce import main

ASKED = Asked(workers=3, image="registry/daskim:1", cpu="2", memory="4Gi", secret="lake", volume="images:/data")


def container(spec: dict[str, Any], part: str) -> dict[str, Any]:
    found: dict[str, Any] = spec["spec"][part]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2.0), (2, 2.0), ("500m", 0.5), ("1.5", 1.5), ("4Gi", 4 * 2**30), ("1e9", 1e9), ("2G", 2e9)],
)
def test_quantities_are_read_as_kubernetes_does(text: object, value: float) -> None:
    assert quantity(text, "cpu") == value


@pytest.mark.parametrize("text", ["", "much", "4GiB", "-1", "0", "1Ki5", "nan"])
def test_what_is_no_quantity_is_told(text: str) -> None:
    with pytest.raises(SettingsError, match="--k8s-memory"):
        quantity(text, "--k8s-memory")


def test_a_cluster_has_what_a_batch_of_work_needs() -> None:
    spec = written_spec(ASKED)
    worker, scheduler = container(spec, "worker"), container(spec, "scheduler")
    # the programs dask-worker and dask-scheduler, which KubeCluster would call, are no longer part of Dask
    assert scheduler["args"][:2] == ["dask", "scheduler"]
    assert worker["args"][:4] == ["dask", "worker", "--nthreads", "2"]
    env = {item["name"]: item["value"] for item in worker["env"]}
    assert env["OMP_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == "1"
    assert worker["resources"]["limits"] == worker["resources"]["requests"] == {"cpu": "2", "memory": "4Gi"}
    limit = int(worker["args"][worker["args"].index("--memory-limit") + 1])
    assert 3.5 * 2**30 < limit < 4 * 2**30
    spill = worker["args"][worker["args"].index("--local-directory") + 1]
    mounts = {mount["mountPath"]: mount["name"] for mount in worker["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["spec"]["worker"]["spec"]["volumes"]}
    assert "emptyDir" in volumes[mounts[spill]]
    assert volumes[mounts["/data"]]["persistentVolumeClaim"]["claimName"] == "images"
    for part in (worker, scheduler):
        assert part["envFrom"] == [{"secretRef": {"name": "lake"}}]
        assert part["securityContext"]["runAsNonRoot"]
    assert spec["spec"]["idleTimeout"] > 0
    assert spec["spec"]["worker"]["replicas"] == 3
    name = spec["metadata"]["name"]
    assert spec["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == name
    assert written_spec(ASKED)["metadata"]["name"] != name


def test_pods_resemble_the_driver_where_access_hangs_on_it() -> None:
    spec = written_spec(ASKED)
    driver = {
        "serviceAccountName": "lake-reader",
        "securityContext": {"fsGroup": 7},
        "nodeName": "n1",
        "containers": [],
    }
    resemble(spec, {"spec": driver})
    for part in ("scheduler", "worker"):
        pod = spec["spec"][part]["spec"]
        assert pod["serviceAccountName"] == "lake-reader"
        assert pod["securityContext"] == {"fsGroup": 7}
        assert pod["automountServiceAccountToken"] is False
        assert "nodeName" not in pod


def test_a_whole_spec_is_handed_through(tmp_path: Path) -> None:
    own = {
        "kind": "DaskCluster",
        "apiVersion": "kubernetes.dask.org/v1",
        "metadata": {"name": "My_Night.ly" + "x" * 80, "namespace": "elsewhere", "annotations": {"team": "vision"}},
        "spec": {
            "idleTimeout": 77,
            "scheduler": {
                "spec": {"containers": [{"image": "s:1", "command": ["dask-scheduler"]}], "hostNetwork": True}
            },
            "worker": {
                "replicas": 2,
                "spec": {
                    "nodeSelector": {"disk": "ssd"},
                    "containers": [
                        {
                            "image": "w:1",
                            "args": ["dask", "worker", "--nthreads", "4"],
                            "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
                        }
                    ],
                },
            },
        },
    }
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(own))
    spec = read_spec(str(file), None)
    assert spec["metadata"]["annotations"] == {"team": "vision"}
    assert "namespace" not in spec["metadata"]
    assert spec["metadata"]["name"].startswith("my-night-ly")
    assert len(spec["metadata"]["name"] + "-scheduler") <= 63
    assert spec["spec"]["idleTimeout"] == 77
    assert spec["spec"]["worker"]["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert container(spec, "scheduler")["args"][:2] == ["dask", "scheduler"]
    assert "command" not in container(spec, "scheduler")
    worker = container(spec, "worker")
    assert worker["args"] == ["dask", "worker", "--nthreads", "4"]
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in worker["env"]
    assert {"name": "OPENBLAS_NUM_THREADS", "value": "1"} in worker["env"]
    assert described(spec).workers == 8
    assert read_spec(str(file), 5)["spec"]["worker"]["replicas"] == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a DaskCluster"),
        ("kind: [", "cannot be read"),
        ("kind: Deployment", "not a DaskCluster"),
        ("kind: DaskCluster", "spec.scheduler.spec.containers"),
        ("{kind: DaskCluster, spec: {scheduler: {spec: {containers: [{image: a}]}}}}", "spec.worker"),
        ("{kind: DaskCluster, spec: {scheduler: {spec: {containers: [{name: a}]}}}}", "names no image"),
    ],
)
def test_a_spec_that_is_none_is_told(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_spec(str(file), None)


@pytest.mark.parametrize(
    ("options", "memory", "words"),
    [
        ({"k8s-cpu": "many"}, None, "--k8s-cpu"),
        ({"k8s-memory": "4GiB"}, None, "--k8s-memory"),
        ({"k8s-volume": "data"}, None, "CLAIM:/path"),
        ({"k8s-timeout": 0.0}, None, "--k8s-timeout"),
        ({"k8s-spec": "nowhere.yaml"}, None, "nowhere.yaml"),
        ({"k8s-spec": "nowhere.yaml", "k8s-cpu": "2"}, None, "--k8s-cpu says nothing"),
        ({"tls": True}, None, "--tls"),
        ({}, 10**9, "--k8s-memory"),
    ],
)
def test_a_mistake_is_told_before_kubernetes_is_asked(
    options: dict[str, Any], memory: int | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(SettingsError, match=words):
        open_place(
            "k8s", memory=memory, options={"k8s-image": "i", **options} if "k8s-spec" not in options else options
        )


def test_a_plan_starts_no_cluster(planted: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    source = str(planted(400, 16, redundancy=0.2, seed=3)[0])
    words = [source, "--run", str(tmp_path / "run"), "--cluster", "k8s", "--plan", "--json", "--workers", "3"]
    assert main([*words, "--k8s-memory", "4Gi", "--k8s-cpu", "2"]) == 0
    stages = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]
    assert {stage["memory_limit_bytes"] for stage in stages} == {4 * 2**30 - 200_000_000}
    place = describe_place("k8s", workers=3, options={"k8s-cpu": "2"})
    assert (place.workers, place.processes) == (6, 3)


class Quiet:
    """What Kubernetes says beside the pods themselves."""

    def events(self, pod: str) -> list[str]:
        return ["Failed: no such image"]

    def log(self, pod: dict[str, Any], lines: int) -> list[str]:
        return []


def pod(name: str, role: str = "worker", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"dask.org/component": role}},
        "status": {"phase": "Pending", **status},
    }


def test_pods_in_trouble_are_told_with_their_reasons() -> None:
    unscheduled = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: cpu"}]
    pulling = [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}]
    eaten = [
        {
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
        }
    ]
    starting = [{"state": {"waiting": {"reason": "ContainerCreating"}}}]
    ready = [{"type": "Ready", "status": "True"}]
    assert pod_state(pod("a", conditions=unscheduled)) == ("Unschedulable", "not scheduled: 0/3 nodes: cpu")
    assert pod_state(pod("a", containerStatuses=pulling))[0] == "ImagePullBackOff"
    assert pod_state(pod("a", containerStatuses=eaten))[0] == "OOMKilled"
    assert pod_state(pod("a", containerStatuses=starting))[0] == ""
    assert pod_state(pod("a", conditions=ready)) == ("", "ready")
    pods = [pod(f"w{i}", containerStatuses=pulling) for i in range(40)] + [pod("s", "scheduler", conditions=ready)]
    lines, remedy = report(Quiet(), pods)
    assert lines == [
        "worker w0: ImagePullBackOff: Back-off",
        "    event: Failed: no such image",
        "and 39 more pods in the same states",
    ]
    assert "--k8s-image" in remedy


def test_a_driver_that_computes_alone_keeps_its_scheduler_alive() -> None:
    pytest.importorskip("dask_kubernetes", reason="the extra k8s is not installed")
    from daskim.compute.k8s.rented import Pulse

    options: dict[str, Any] = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, processes=False, silence_logs=50, **options) as cluster, Client(cluster) as client:
        client.submit(int).result()
        time.sleep(0.5)
        before = cluster.scheduler.transition_counter
        time.sleep(0.5)
        assert cluster.scheduler.transition_counter == before
        pulse = Pulse(client, 0.5)
        time.sleep(1)
        pulse.stop()
        assert cluster.scheduler.transition_counter > before
