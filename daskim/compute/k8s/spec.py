"""Which DaskCluster is asked for: written from a few options, or read from a file and made right."""

from __future__ import annotations

import copy
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskim.compute import Described
from daskim.compute.k8s.quantities import quantity
from daskim.compute.pods import ENV, worker_memory
from daskim.errors import SettingsError

__all__ = ["IDLE", "SCRATCH", "Asked", "default_image", "described", "read_spec", "resemble", "written_spec"]

# Seconds without work after which the operator removes the cluster. The driver gives the scheduler a sign of life far
# more often (`rented.Pulse`), so this is how long the cluster of a driver that was killed stays.
IDLE = 600
# Where workers spill, on the node's disk and never on the store of the run.
SCRATCH = "/tmp/daskim-scratch"
LABELS = {"app.kubernetes.io/name": "daskim", "app.kubernetes.io/component": "dask"}
SCHEDULER = {"cpu": "500m", "memory": "1Gi"}
# What Pod Security "restricted" asks of a container.
CONFINED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class Asked:
    """What a user asks for, short of a whole spec.

    Attributes
    ----------
    workers : int
        Worker pods, one process each.
    image : str
    cpu, memory : str
        Requests and limits of a worker, as Kubernetes writes them.
    secret : str or None
        A Secret whose keys become environment variables of the scheduler and the workers.
    volume : str or None
        CLAIM:/path, a PersistentVolumeClaim for the workers.
    """

    workers: int
    image: str
    cpu: str
    memory: str
    secret: str | None = None
    volume: str | None = None


def default_image() -> str | None:
    """The image that the environment names, if it does."""
    return os.environ.get("DASKIM_IMAGE") or None


def written_spec(asked: Asked) -> dict[str, Any]:
    """A DaskCluster resource for these wishes."""
    quantity(asked.memory, "--k8s-memory")
    quantity(asked.cpu, "--k8s-cpu")
    worker = _container("worker", asked, {"cpu": asked.cpu, "memory": asked.memory})
    mounts: list[dict[str, Any]] = [{"name": "scratch", "mountPath": SCRATCH}]
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}]
    if asked.volume is not None:
        claim, _, path = asked.volume.partition(":")
        if not claim or not path.startswith("/"):
            raise SettingsError(f"--k8s-volume {asked.volume}: not CLAIM:/path", "Such as images:/data.")
        mounts.append({"name": "data", "mountPath": path})
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": claim}})
    worker["volumeMounts"] = mounts
    scheduler = _container("scheduler", asked, dict(SCHEDULER))
    pods = {"automountServiceAccountToken": False}
    return _made_right(
        {
            "apiVersion": "kubernetes.dask.org/v1",
            "kind": "DaskCluster",
            "metadata": {"name": "daskim", "labels": dict(LABELS)},
            "spec": {
                "scheduler": {"spec": {**pods, "containers": [scheduler]}},
                "worker": {"replicas": asked.workers, "spec": {**pods, "containers": [worker], "volumes": volumes}},
            },
        }
    )


def resemble(spec: dict[str, Any], pod: Mapping[str, Any]) -> None:
    """Give the pods of a cluster what lets the driver's pod reach images, volumes and the lake.

    That is its service account (no token of it is mounted: clouds hand out access to storage by its name), its pull
    secrets, and the user and group that volumes belong to.
    """
    for part in ("scheduler", "worker"):
        for key in ("serviceAccountName", "imagePullSecrets", "securityContext"):
            if pod["spec"].get(key):
                spec["spec"][part]["spec"][key] = copy.deepcopy(pod["spec"][key])


def _container(name: str, asked: Asked, resources: dict[str, str]) -> dict[str, Any]:
    secrets = {"envFrom": [{"secretRef": {"name": asked.secret}}]} if asked.secret else {}
    both = {"requests": resources, "limits": dict(resources)}
    return {"name": name, "image": asked.image, **secrets, "resources": both, "securityContext": dict(CONFINED)}


def read_spec(file: str, workers: int | None) -> dict[str, Any]:
    """A DaskCluster resource from a YAML or JSON file, with only that set which has to be right.

    That is: a name of its own; the number of workers, if given; an idle time-out; the commands, where they are absent
    or call programs that Dask no longer has; probes' and service's ports, where absent; threads of BLAS.

    Raises
    ------
    SettingsError
        The file cannot be read, or is no DaskCluster.
    """
    import yaml

    try:
        spec = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"--k8s-spec {file}: cannot be read ({error})", "Name a YAML or JSON file.") from None
    if not isinstance(spec, dict) or spec.get("kind") != "DaskCluster":
        raise SettingsError(f"--k8s-spec {file}: not a DaskCluster", "Give one resource, kind: DaskCluster.")
    for part in ("scheduler", "worker"):
        try:
            containers = spec["spec"][part]["spec"]["containers"]
            whole = isinstance(containers, list) and all(isinstance(c, dict) and c.get("image") for c in containers)
        except (KeyError, TypeError):
            whole = False
        if not whole or not containers:
            raise SettingsError(
                f"--k8s-spec {file}: spec.{part}.spec.containers names no image", "Give each container an image."
            )
    if workers is not None:
        spec["spec"]["worker"]["replicas"] = workers
    return _made_right(copy.deepcopy(spec))


def _made_right(spec: dict[str, Any]) -> dict[str, Any]:
    metadata = spec.setdefault("metadata", {})
    metadata.pop("namespace", None)  # the request's path names it
    stem = re.sub(r"[^a-z0-9-]+", "-", str(metadata.get("name") or "daskim").lower()).strip("-")[:30] or "daskim"
    # A name a run: an autoscaler or finaliser of an earlier cluster may outlive it by a minute.
    name = metadata["name"] = f"{stem.rstrip('-')}-{uuid.uuid4().hex[:8]}"
    body = spec["spec"]
    body["idleTimeout"] = int(body.get("idleTimeout") or IDLE)
    worker, scheduler = body["worker"], body["scheduler"]
    worker["replicas"] = int(worker.get("replicas") or 1)
    _scheduler_container(scheduler["spec"]["containers"][0])
    _worker_container(worker["spec"]["containers"][0])
    for part in (scheduler, worker):
        env = part["spec"]["containers"][0].setdefault("env", [])
        there = {item.get("name") for item in env}
        env += [{"name": name, "value": value} for name, value in ENV.items() if name not in there]
    service = scheduler.setdefault("service", {})
    service.setdefault("type", "ClusterIP")
    service.setdefault("ports", [_port(8786, "tcp-comm", "port"), _port(8787, "http-dashboard", "port")])
    service["selector"] = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    return spec


def _port(number: int, name: str, kind: str) -> dict[str, Any]:
    return {"name": name, kind: number, "protocol": "TCP"} | ({"targetPort": name} if kind == "port" else {})


def _calls(container: Mapping[str, Any], gone: str) -> bool:
    """Whether a container says itself what it runs, and that is not a program that Dask no longer has."""
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    return bool(words) and not str(words[0]).endswith(gone)


def _scheduler_container(container: dict[str, Any]) -> None:
    if not _calls(container, "dask-scheduler"):
        container.pop("command", None)
        container["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    container.setdefault("args", [])  # KubeCluster reads it
    container.setdefault(
        "ports", [_port(8786, "tcp-comm", "containerPort"), _port(8787, "http-dashboard", "containerPort")]
    )
    health = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    container.setdefault("readinessProbe", {**health, "periodSeconds": 1, "timeoutSeconds": 5})
    container.setdefault("livenessProbe", {**health, "initialDelaySeconds": 15, "periodSeconds": 20})


def _worker_container(container: dict[str, Any]) -> None:
    if not _calls(container, "dask-worker"):
        container.pop("command", None)
        threads, memory = _share(container)
        sized = ["--nthreads", str(threads), *(["--memory-limit", str(memory)] if memory else [])]
        placed = ["--name", "$(DASK_WORKER_NAME)", "--no-dashboard", "--local-directory", SCRATCH]
        container["args"] = ["dask", "worker", *sized, *placed]


def _share(container: Mapping[str, Any]) -> tuple[int, int]:
    """(threads, bytes of memory) of the worker in a container; 0 bytes where no limit is set."""
    resources = container.get("resources") or {}
    both = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    threads = max(1, int(quantity(both["cpu"], "worker cpu"))) if "cpu" in both else 1
    limit = int(quantity(both["memory"], "worker memory")) if "memory" in both else 0
    return threads, worker_memory(limit)


def described(spec: Mapping[str, Any]) -> Described:
    """The place that this resource will be."""
    worker = spec["spec"]["worker"]
    container = worker["spec"]["containers"][0]
    threads, memory = _share(container)
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    if "--nthreads" in words[:-1]:
        text = str(words[words.index("--nthreads") + 1])
        threads = int(text) if text.isdecimal() else threads
    return Described("k8s", worker["replicas"] * threads, worker["replicas"], memory)
