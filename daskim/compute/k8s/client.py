"""The Kubernetes API, by kr8s: one namespace, a bound on every call, and errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import kr8s
from kr8s.objects import Event, Pod, new_class

from daskim.errors import SourceError

__all__ = ["Kube", "Missing"]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Seconds for one request.
REQUEST = 30.0

DaskCluster = new_class("DaskCluster", "kubernetes.dask.org/v1")


class Missing(Exception):
    """What was asked for is not there."""


class Kube:
    """One namespace of one cluster.

    Parameters
    ----------
    namespace : str, optional
        By default that of the pod this runs in, else that of the kubeconfig.

    Attributes
    ----------
    inside : bool
        Whether this process runs in a pod.
    namespace : str

    Raises
    ------
    SourceError
        No credentials, or no answer.
    """

    def __init__(self, namespace: str | None) -> None:
        self.inside = (ACCOUNT / "namespace").is_file()
        if namespace is None and self.inside:  # kr8s would take "default" here
            namespace = (ACCOUNT / "namespace").read_text().strip()
        with self._told("reach Kubernetes"):
            self._api = kr8s.api(namespace=namespace)
            self._api.timeout = httpx.Timeout(REQUEST)
            self.namespace: str = namespace or self._api.namespace

    def own_pod(self) -> dict[str, Any] | None:
        """The pod that this process runs in; None outside, or where it may not be read or has another name."""
        if not self.inside:
            return None
        try:
            return self._pod(os.environ.get("DASKIM_POD_NAME") or os.environ.get("HOSTNAME", ""))
        except (Missing, SourceError):
            return None

    def _pod(self, name: str) -> dict[str, Any]:
        with self._told(f"read pod {name}"):
            for pod in Pod.list(namespace=self.namespace, field_selector={"metadata.name": name}, api=self._api):
                return pod.to_dict()  # type: ignore[union-attr]
        raise Missing(name)

    def create(self, spec: dict[str, Any]) -> None:
        """Create a DaskCluster."""
        try:
            with self._told("create a DaskCluster"):
                DaskCluster(spec, namespace=self.namespace, api=self._api).create()
        except Missing:
            raise SourceError(
                f"namespace {self.namespace} is not there, or Kubernetes does not know DaskCluster",
                "Install the Dask operator once per Kubernetes cluster (helm chart dask-kubernetes-operator), or use "
                "--cluster k8s-job, which needs none.",
            ) from None

    def delete(self, name: str) -> None:
        """Ask for a DaskCluster's removal; nothing where it is gone already."""
        try:
            with self._told(f"delete DaskCluster {name}"):
                DaskCluster(_named(name), namespace=self.namespace, api=self._api).delete()
        except Missing:
            pass

    def phase(self, name: str) -> str:
        """What the operator says of a DaskCluster: "" where it never saw it."""
        with self._told(f"read DaskCluster {name}"):
            for found in DaskCluster.list(
                namespace=self.namespace, field_selector={"metadata.name": name}, api=self._api
            ):
                return str(found.raw.get("status", {}).get("phase", ""))  # type: ignore[union-attr]
        raise Missing(name)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """All pods of a DaskCluster."""
        with self._told("list pods"):
            label = {"dask.org/cluster-name": name}
            found = Pod.list(namespace=self.namespace, label_selector=label, api=self._api)
            return [pod.to_dict() for pod in found]  # type: ignore[union-attr]

    def events(self, pod: str) -> list[str]:
        """What Kubernetes says happened to a pod; empty where events may not be read."""
        try:
            with self._told("list events"):
                chosen = {"involvedObject.name": pod}
                found = Event.list(namespace=self.namespace, field_selector=chosen, api=self._api)
                raw = [event.to_dict() for event in found]  # type: ignore[union-attr]
        except (Missing, SourceError):
            return []
        return [f"{event.get('reason', '')}: {event.get('message', '')}" for event in raw]

    def log(self, pod: dict[str, Any], lines: int) -> list[str]:
        """Last lines of a pod's log, of its last run where it starts again; says so where it may not be read."""
        statuses = pod.get("status", {}).get("containerStatuses") or []
        if not any(status.get("restartCount") or "waiting" not in status.get("state", {}) for status in statuses):
            return []  # it never ran
        previous = any("waiting" in status.get("state", {}) and status.get("restartCount") for status in statuses)
        for before in (True, False) if previous else (False,):
            try:
                with self._told("read logs"):
                    found = Pod(pod, namespace=self.namespace, api=self._api)
                    text = list(found.logs(tail_lines=lines, previous=before, timeout=REQUEST))
            except Missing:
                continue
            except SourceError as error:
                text = [] if before else [f"(the log cannot be read: {error.what})"]
            if text:
                return text[-lines:]
        return []

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of the API in words; absence as `Missing`."""
        try:
            yield
        except kr8s.ServerError as error:
            code = error.response.status_code if error.response is not None else 0
            if code == 404:
                raise Missing(what) from None
            hints = {
                401: "Renew the credentials of the kubeconfig.",
                403: "Give the service account this right: deploy/ has a Role with all that is needed.",
                422: "Correct --k8s-spec, or the option that it names.",
            }
            raise SourceError(f"Kubernetes refuses to {what}: {error}", hints.get(code, "Try again later.")) from None
        except kr8s.NotFoundError:
            raise Missing(what) from None
        except (kr8s.APITimeoutError, httpx.HTTPError, OSError, ValueError) as error:
            words = str(error) or type(error).__name__
            raise SourceError(f"cannot {what}: {words}", "Check KUBECONFIG and that its server answers.") from None


def _named(name: str) -> dict[str, Any]:
    return {"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskCluster", "metadata": {"name": name}}
