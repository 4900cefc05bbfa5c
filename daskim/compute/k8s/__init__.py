"""`--cluster k8s`: a Dask cluster that the dask-kubernetes operator makes for one run, and that goes with it.

From outside (a kubeconfig; the scheduler is reached by port forwarding) or from the pod of a Job or CronJob. The
files: `spec` says which DaskCluster is asked for, `quantities` reads amounts such as 2Gi, `client` talks to Kubernetes,
`diagnosis` tells why pods do not start, and `rented` creates, waits, connects and removes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskim.compute import Described, Place
from daskim.compute.k8s.spec import Asked, default_image, described, read_spec, resemble, written_spec
from daskim.compute.pods import seconds_of
from daskim.errors import SettingsError

__all__ = ["OPTIONS", "describe", "start"]

# Options of the command line that this place takes.
OPTIONS: tuple[str, ...] = (
    "k8s-image",
    "k8s-namespace",
    "k8s-cpu",
    "k8s-memory",
    "k8s-secret",
    "k8s-volume",
    "k8s-spec",
    "k8s-timeout",
)
# Of these, what a whole spec says itself.
IN_SPEC = ("k8s_image", "k8s_cpu", "k8s_memory", "k8s_secret", "k8s_volume")
WORKERS = 2


def describe(rest: str, *, workers: int | None, memory: int | None, **options: Any) -> Described:
    """The place that `start` would make, without asking Kubernetes."""
    seconds_of(options)
    image = {} if options.get("k8s_spec") else {"k8s_image": options.get("k8s_image") or default_image() or "unknown"}
    return described(_spec(rest, workers, memory, options | image))


def start(rest: str, *, workers: int | None, memory: int | None, **options: Any) -> Place:
    """Make the cluster and wait for its workers.

    Parameters
    ----------
    rest : str
        What stands after `--cluster k8s:`; nothing may.
    workers : int, optional
        Worker pods; 2 by default.
    memory : int, optional
        Refused: it is for the workers of one machine.
    **options
        `OPTIONS`, with _ for -.

    Raises
    ------
    SettingsError
        An option that cannot be carried out.
    SourceError
        Kubernetes or the operator cannot be reached, or refuses; or the workers are not there in time. Nothing is
        left in Kubernetes then.
    """
    describe(rest, workers=workers, memory=memory, **options)  # a mistake is told before Kubernetes is asked
    try:
        from daskim.compute.k8s.client import Kube
        from daskim.compute.k8s.rented import rent
    except ImportError as error:
        raise SettingsError(
            f"--cluster k8s needs packages that are not installed ({error.name})", 'pip install "daskim[k8s]".'
        ) from None
    kube = Kube(options.get("k8s_namespace"))
    me = kube.own_pod()
    if options.get("k8s_spec"):
        spec = _spec(rest, workers, memory, options)
    else:
        spec = _spec(rest, workers, memory, {**options, "k8s_image": options.get("k8s_image") or _image(me)})
        if me is not None:
            resemble(spec, me)
    return rent(kube, spec, me, seconds_of(options))


def _image(me: Mapping[str, Any] | None) -> str:
    """The image of the workers where none was named: that of the driver, so that both are one."""
    image = default_image() or (me["spec"]["containers"][0]["image"] if me is not None else None)
    if image is None:
        raise SettingsError(
            "--cluster k8s needs an image for the workers", "Name it with --k8s-image, in DASKIM_IMAGE or in a spec."
        )
    return image


def _spec(rest: str, workers: int | None, memory: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    if rest:
        raise SettingsError(f"--cluster k8s:{rest}: k8s takes nothing after it", "--k8s-namespace names a namespace.")
    if memory is not None:
        raise SettingsError("--memory is for the workers of this machine", "Use --k8s-memory, such as 4Gi, for each.")
    file = options.get("k8s_spec")
    if file is None:
        asked = Asked(
            workers=workers or WORKERS,
            image=options["k8s_image"],
            cpu=options.get("k8s_cpu") or "1",
            memory=options.get("k8s_memory") or "2Gi",
            secret=options.get("k8s_secret"),
            volume=options.get("k8s_volume"),
        )
        return written_spec(asked)
    for name in IN_SPEC:
        if options.get(name):
            raise SettingsError(f"--{name.replace('_', '-')} says nothing beside --k8s-spec", f"Write it into {file}.")
    return read_spec(file, workers)
