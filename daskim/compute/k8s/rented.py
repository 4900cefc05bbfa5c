"""A cluster for the time of a run: created, waited for, connected to, and removed whatever happens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from dask_kubernetes.operator import KubeCluster
from distributed import Client

from daskim.compute.client import Behind
from daskim.compute.k8s.client import Kube, Missing
from daskim.compute.k8s.diagnosis import REMEDIES, is_ready, pod_state, report
from daskim.errors import SourceError

__all__ = ["Pulse", "Rented", "rent"]

# Seconds between two looks at the pods.
LOOK = 0.5
# Seconds in a state that seldom ends by itself before that is taken for final; a registry may fail once.
PATIENCE = 45.0
# Seconds after which a cluster that no operator has touched is said to have none.
UNSEEN = 30.0
# Seconds for the operator to remove a cluster.
CLOSE = 60.0


def rent(kube: Kube, spec: dict[str, Any], me: Mapping[str, Any] | None, seconds: float) -> Rented:
    """Create a DaskCluster and connect to it.

    Parameters
    ----------
    kube : Kube
    spec : dict
        The resource; its name is one of its own.
    me : mapping, optional
        The pod of the driver: when it is deleted, Kubernetes deletes the cluster too.
    seconds : float
        From creation until all workers are there.

    Raises
    ------
    SourceError
        They are not there in time, or Kubernetes refuses. The cluster is removed again.
    """
    name = spec["metadata"]["name"]
    if me is not None:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": me["metadata"]["name"], "uid": me["metadata"]["uid"]}
        spec["metadata"]["ownerReferences"] = [owner]
    try:
        kube.create(spec)
        return _connected(kube, spec, time.monotonic() + seconds, seconds)
    except BaseException:  # Ctrl-C and SIGTERM as well: nothing may stay
        _ask_removal(kube, name)
        raise


def _connected(kube: Kube, spec: dict[str, Any], deadline: float, seconds: float) -> Rented:
    name, wanted = spec["metadata"]["name"], spec["spec"]["worker"]["replicas"]
    watch = _Watch(kube, name, deadline, seconds)
    watch.until("the scheduler", lambda pods: any(_component(pod) == "scheduler" and is_ready(pod) for pod in pods))
    cluster, client = _connection(kube, watch)

    def present(pods: list[dict[str, Any]]) -> bool:
        return len(client.scheduler_info(n_workers=-1)["workers"]) >= wanted

    try:
        watch.until(f"{wanted} workers", present)
    except BaseException:
        client.close(timeout=5)
        raise
    return Rented(client, _Removal(kube, cluster), spec["spec"]["idleTimeout"])


def _connection(kube: Kube, watch: _Watch) -> tuple[KubeCluster, Client]:
    """Connect to a cluster whose scheduler is ready.

    The constructor of KubeCluster would create it as well, but waits without bound and believes phases that the
    operator does not always set; connecting does neither.
    """
    try:
        cluster = _bounded(
            lambda: KubeCluster.from_name(
                watch.name,
                namespace=kube.namespace,
                shutdown_on_close=True,
                port_forward_cluster_ip=not kube.inside,
                quiet=True,
            ),
            watch.left(),
            lambda: watch.failure("no connection to its scheduler"),
        )
        return cluster, Client(cluster.scheduler_address, timeout=watch.left(), set_as_default=False)
    except SourceError:
        raise
    except Exception as error:  # of kr8s, httpx, distributed or the port forwarding between them
        raise watch.failure(f"no connection to its scheduler ({str(error) or type(error).__name__})") from error


def _component(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("labels", {}).get("dask.org/component", ""))


class _Watch:
    """Looks at the pods of a cluster until they are as wanted, the time is over or there is no hope."""

    def __init__(self, kube: Kube, name: str, deadline: float, seconds: float) -> None:
        self.kube = kube
        self.name = name
        self.began = time.monotonic()
        self.deadline = deadline
        self.seconds = seconds
        self._since: dict[str, float] = {}  # pod in trouble -> since when

    def left(self) -> float:
        """Seconds until the deadline, and enough for a connection in any case."""
        return max(10.0, self.deadline - time.monotonic())

    def until(self, what: str, there: Callable[[list[dict[str, Any]]], bool]) -> None:
        while True:
            try:
                pods = self.kube.pods(self.name)
            except SourceError:
                if time.monotonic() > self.deadline:
                    raise
                pods = []
            if there(pods):
                return
            now = time.monotonic()
            if now > self.deadline:
                raise self.failure(f"{what} not there after {self.seconds:.0f} s")
            if self._hopeless(pods, now):
                raise self.failure(f"{what} cannot start")
            if not pods and now - self.began > UNSEEN and self._unseen():
                raise SourceError(
                    f"--cluster k8s: no operator has taken up DaskCluster {self.name} in {self.kube.namespace} after "
                    f"{now - self.began:.0f} s",
                    "Is the Dask operator running, and does it watch this namespace? Or use --cluster k8s-job.",
                )
            time.sleep(LOOK)

    def _hopeless(self, pods: list[dict[str, Any]], now: float) -> bool:
        troubled = set()
        for pod in pods:
            reason = pod_state(pod)[0]
            if reason in REMEDIES and reason != "Unschedulable":  # nodes may still come
                troubled.add(pod["metadata"]["name"])
        self._since = {pod: self._since.get(pod, now) for pod in troubled}
        return any(now - since > PATIENCE for since in self._since.values())

    def _unseen(self) -> bool:
        try:
            return not self.kube.phase(self.name)
        except (Missing, SourceError):
            return False

    def failure(self, what: str) -> SourceError:
        """The error, with what the pods say; asked now, because they go with the cluster."""
        try:
            lines, remedy = report(self.kube, self.kube.pods(self.name))
        except SourceError as error:
            lines, remedy = [f"the pods cannot be read: {error.what}"], ""
        told = "".join(f"\n  {line}" for line in lines)
        return SourceError(
            f"--cluster k8s: DaskCluster {self.name} in {self.kube.namespace}: {what}{told}",
            remedy or "Look at the pods above, or give it longer with --k8s-timeout.",
        )


class Rented(Behind):
    """The place of a rented cluster; `close` removes it."""

    def __init__(self, client: Client, removal: _Removal, idle: float) -> None:
        self._pulse: Pulse | None = None
        super().__init__("k8s", client, (removal,))
        self._pulse = Pulse(client, idle)

    def close(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
        super().close()


class _Removal:
    """The end of a cluster: what `Behind` closes after its client."""

    def __init__(self, kube: Kube, cluster: KubeCluster) -> None:
        self._kube = kube
        self._cluster = cluster

    def close(self) -> None:
        name = self._cluster.name
        try:
            _bounded(lambda: self._cluster.close(timeout=CLOSE) or True, CLOSE + 15, lambda: TimeoutError("no end"))
        except Exception as error:
            _warn(self._kube, name, error)
        except BaseException:  # a second interruption: it is at least asked for
            _ask_removal(self._kube, name)
            raise


def _ask_removal(kube: Kube, name: str) -> None:
    """Ask for the removal without waiting for it; a failure is told, and hides no other error."""
    try:
        kube.delete(name)
    except SourceError as error:
        _warn(kube, name, error)


def _warn(kube: Kube, name: str, error: Exception) -> None:
    words = str(error) or type(error).__name__
    text = "DaskCluster %s in %s may still be there (%s): see kubectl get daskclusters"
    logging.getLogger("daskim").warning(text, name, kube.namespace, words)


class Pulse:
    """Signs of life for the scheduler, so that a long phase of the driver alone is not taken for its death.

    Parameters
    ----------
    client : distributed.Client
    idle : float
        Seconds after which the operator removes an idle cluster; five pulses fit in.
    """

    def __init__(self, client: Client, idle: float) -> None:
        self._client = client
        self._every = idle / 5
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="daskim-pulse", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._client.submit(int, pure=False).release()
            except Exception:  # the scheduler is gone: the work itself will tell
                return

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def _bounded(work: Callable[[], Any], seconds: float, late: Callable[[], BaseException]) -> Any:
    """What `work` returns, or the error of `late` if it takes longer. It then goes on in a daemon thread."""
    found: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="daskim-k8s", daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not found:
        raise late()
    return found[0]
