"""Why the pods of a cluster do not run: waiting reasons, events and logs, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Told", "is_ready", "pod_state", "report"]

# Reasons from which a pod seldom recovers by itself, and what to do about each.
REMEDIES = {
    "ImagePullBackOff": "Check --k8s-image, and that the nodes may pull it.",
    "ErrImagePull": "Check --k8s-image, and that the nodes may pull it.",
    "InvalidImageName": "Check --k8s-image.",
    "ErrImageNeverPull": "Load the image into the nodes, or let them pull it.",
    "CreateContainerConfigError": "Create what it names (--k8s-secret), or an image whose user is not root.",
    "CrashLoopBackOff": "Its log says why. The image needs this version of daskim, with Dask.",
    "OOMKilled": "Give each worker more memory (--k8s-memory).",
    "Unschedulable": "Ask for less (--workers, --k8s-cpu, --k8s-memory), or wait longer for new nodes (--k8s-timeout).",
}
LINES = 8


class Told(Protocol):
    """What the report asks of Kubernetes (`client.Kube`)."""

    def events(self, pod: str) -> list[str]: ...

    def log(self, pod: dict[str, Any], lines: int) -> list[str]: ...


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether Kubernetes calls a pod ready."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)


def pod_state(pod: Mapping[str, Any]) -> tuple[str, str]:
    """(reason, words): the reason is a key of `REMEDIES` where the pod is in trouble, else ""."""
    status = pod.get("status", {})
    for item in status.get("conditions") or []:
        if item.get("type") == "PodScheduled" and item.get("status") == "False":
            return str(item.get("reason") or "Unschedulable"), f"not scheduled: {item.get('message', '')}"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = container.get("state", {}).get("waiting")
        last = container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated")
        ended = f", ended with exit code {last.get('exitCode')} ({last.get('reason', '')})" if last else ""
        if last and last.get("reason") == "OOMKilled":
            return "OOMKilled", f"killed for its memory{ended}"
        if waiting:
            reason = str(waiting.get("reason", "waiting"))
            words = f"{reason}: {waiting.get('message', '')}".rstrip(": ") + ended
            return (reason if reason in REMEDIES else ""), words
        if last:
            return "", f"started {container.get('restartCount', 0)} times again{ended}"
    return "", "ready" if is_ready(pod) else f"{status.get('phase', 'unknown')}, not ready"


def report(kube: Told, pods: Sequence[dict[str, Any]]) -> tuple[list[str], str]:
    """Lines about every pod that is not ready, and the remedy of the first trouble ("" if none is known).

    Pods of one state are told once: a hundred workers that wait for one image are one line.
    """
    lines: list[str] = []
    remedy = ""
    told: dict[str, int] = {}
    for pod in sorted(pods, key=_role):
        reason, words = pod_state(pod)
        if words == "ready":
            continue
        key = f"{_role(pod)} {words}"
        told[key] = told.get(key, 0) + 1
        if told[key] > 1:
            continue
        remedy = remedy or REMEDIES.get(reason, "")
        name = pod["metadata"]["name"]
        lines.append(f"{_role(pod)} {name}: {words}")
        lines += [f"    event: {event}" for event in _distinct(kube.events(name))[-3:]]
        lines += [f"    log: {line}" for line in kube.log(pod, LINES)]
    more = sum(told.values()) - len(told)
    if more:
        lines.append(f"and {more} more pods in the same states")
    return lines, remedy


def _role(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("labels", {}).get("dask.org/component", "pod"))


def _distinct(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(lines))
