"""A namespace of a Kubernetes cluster, and what the tests do there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fsspec
import pytest

# Rights of a driver in a pod: what deploy/ gives it.
RULES = [
    {"apiGroups": ["kubernetes.dask.org"], "resources": ["daskclusters"], "verbs": ["create", "get", "list", "delete"]},
    {"apiGroups": ["kubernetes.dask.org"], "resources": ["daskworkergroups"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]
COMMAND = ("-m", "daskim.jobs.reduce")
SETTINGS = ("--size", "16x16", "--set", "blocks.rows=100", "--no-report")


@dataclass
class Site:
    """A namespace, and what the tests do there.

    Attributes
    ----------
    namespace, image, shared : str
    """

    namespace: str
    image: str
    shared: str

    def create(self, *manifests: dict[str, Any]) -> None:
        from kr8s.objects import object_from_spec

        for manifest in manifests:
            object_from_spec(manifest, allow_unknown_type=True).create()

    def find(self, kind: str, label: str = "", name: str = "") -> list[dict[str, Any]]:
        """Objects of the namespace."""
        import kr8s

        chosen = {"label_selector": label} if label else {}
        chosen |= {"field_selector": f"metadata.name={name}"} if name else {}
        return [found.to_dict() for found in kr8s.get(kind, namespace=self.namespace, **chosen)]

    def clusters(self, *, alive: bool = False) -> list[str]:
        """Names of the DaskClusters; `alive`: whose removal nobody has asked for."""
        found = [item["metadata"] for item in self.find("daskclusters.kubernetes.dask.org")]
        return [item["name"] for item in found if not (alive and item.get("deletionTimestamp"))]

    def delete(self, kind: str, name: str, **how: Any) -> None:
        import kr8s

        for found in kr8s.get(kind, name, namespace=self.namespace):
            found.delete(**how)

    def url(self, name: str) -> str:
        return f"{self.shared.rstrip('/')}/{name}"

    def exists(self, *parts: str) -> bool:
        return bool(fsspec.core.url_to_fs(self.url("/".join(parts)))[0].exists(self.url("/".join(parts))))

    def summary(self, run: str) -> dict[str, Any]:
        with fsspec.open(self.url(f"{run}/summary.json")) as file:
            return json.load(file)  # type: ignore[no-any-return]

    def log(self, pod: str) -> str:
        import kr8s

        return "\n".join(line for found in kr8s.get("pods", pod, namespace=self.namespace) for line in found.logs())

    def words(self, run: str, *more: str) -> list[str]:
        """The command for a run on a cluster, without its interpreter."""
        return [*COMMAND, self.url("source"), "--run", self.url(run), "--cluster", "k8s", *SETTINGS, *more]

    def start(self, run: str, *more: str, image: str | None = None) -> subprocess.Popen[str]:
        """A driver outside; `image` is "" where a spec names it."""
        image = self.image if image is None else image
        words = [*self.words(run, "--k8s-namespace", self.namespace), *(("--k8s-image", image) if image else ())]
        return subprocess.Popen(
            [sys.executable, *words, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def job(self, name: str, run: str, *more: str) -> dict[str, Any]:
        """A Job whose pod is the driver."""
        container = {"name": "driver", "image": self.image, "command": ["python", *self.words(run, *more)]}
        container["env"] = [{"name": "OMP_NUM_THREADS", "value": "1"}]
        pod = {"serviceAccountName": "driver", "restartPolicy": "Never", "containers": [container]}
        spec = {"backoffLimit": 0, "template": {"metadata": {"labels": {"job": name}}, "spec": pod}}
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def until(what: Callable[[], Any], seconds: float, words: str) -> Any:
    """Wait until something is true; its value."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        if time.monotonic() > deadline:
            pytest.fail(f"not after {seconds:.0f} s: {words}")
        time.sleep(0.3)
    return value
