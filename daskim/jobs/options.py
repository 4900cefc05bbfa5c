"""Options that several commands share: their types and help, and how their values are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from daskim.errors import SettingsError
from daskim.remote import Options

__all__ = [
    "Assignments",
    "CostOptions",
    "Format",
    "Json",
    "MaxBad",
    "Mode",
    "PlaceOptions",
    "Preview",
    "Quiet",
    "Report",
    "Restart",
    "RunOptions",
    "RunPlace",
    "SimilaritySize",
    "SourceOptions",
    "StandardSize",
    "TellOptions",
    "Update",
    "bytes_of",
    "number_of",
    "run_options_of",
    "size_text",
    "storage_options",
]

Restart = Annotated[str | None, Parameter(help="Do this stage and the later ones again.")]
Update = Annotated[
    bool, Parameter(help="Take in what is new, changed and gone in INPUT since RUN was made.", negative="")
]
Format = Annotated[str | None, Parameter(help="[auto] folder, manifest, webdataset, parquet, array or idx.")]
StandardSize = Annotated[str | None, Parameter(help="[32x32] Standard size HxW, or native.")]
Mode = Annotated[Literal["RGB", "L"] | None, Parameter(help="[RGB] Colour or luma.")]
MaxBad = Annotated[float | None, Parameter(help="[1] Share of broken images above which the run ends.")]
Report = Annotated[bool, Parameter(help="Make RUN/report.html, a page to look at.")]
Quiet = Annotated[bool, Parameter(help="No progress, no notes.", negative="")]
Json = Annotated[bool, Parameter(help="JSON lines on standard output.", negative="")]
RunPlace = Annotated[str, Parameter(help="Directory or URL that holds the results.")]
Preview = Annotated[bool, Parameter(help="Say what would be done and what it needs; compute nothing.", negative="")]
Assignments = Annotated[
    list[str] | None, Parameter(name="--set", help="stage.key=value, any setting; repeat for more.", negative="")
]
SourceOptions = Annotated[
    list[str] | None,
    Parameter(help="key=value for fsspec, for INPUT and a RUN of the same kind; repeat.", negative=""),
]
RunOptions = Annotated[
    list[str] | None,
    Parameter(help="key=value for fsspec, for RUN, where --storage-option is not for it; repeat.", negative=""),
]
SimilaritySize = Annotated[
    str | None, Parameter(help="[standard] HxW that the similarity sees, native, or standard (that of --size).")
]


@Parameter(name="*")
@dataclass(frozen=True)
class PlaceOptions:
    """Where the work is done; `--cluster` and what the places of `daskim.compute` take."""

    cluster: Annotated[
        str, Parameter(help="threads, local, address:tcp://host:port, ssh:HOST,..., slurm, k8s or k8s-job.")
    ] = "threads"
    workers: Annotated[int | None, Parameter(help="Threads, processes or pods; default one a core; k8s: 2.")] = None
    memory: Annotated[str | None, Parameter(help="Memory for all workers of one machine, such as 4GB.")] = None

    tls: Annotated[bool, Parameter(help="Certificates for this run, between all its parts.", negative="")] = False
    tls_ca: Annotated[str | None, Parameter(help="address:tls://...: certificate of its authority, PEM.")] = None
    tls_cert: Annotated[str | None, Parameter(help="address:tls://...: certificate to show, PEM.")] = None
    tls_key: Annotated[str | None, Parameter(help="address:tls://...: private key of that, PEM.")] = None
    ssh_config: Annotated[str | None, Parameter(help="ssh: a configuration file for ssh [~/.ssh/config].")] = None
    ssh_python: Annotated[str | None, Parameter(help="ssh: Python on the hosts [the path of this one].")] = None
    slurm_queue: Annotated[str | None, Parameter(help="slurm: partition.")] = None
    slurm_account: Annotated[str | None, Parameter(help="slurm: account to charge.")] = None
    slurm_walltime: Annotated[str | None, Parameter(help="slurm: time limit of a job [the partition's].")] = None
    slurm_cores: Annotated[int | None, Parameter(help="[1] slurm: cores of a job, each a worker process.")] = None
    slurm_wait: Annotated[float | None, Parameter(help="[600] slurm: seconds that jobs may wait in the queue.")] = None
    slurm_directive: Annotated[
        list[str] | None, Parameter(help="slurm: a further #SBATCH line, such as --qos=high; repeat.", negative="")
    ] = None

    k8s_image: Annotated[
        str | None, Parameter(help="k8s: image of the workers [DASKIM_IMAGE, or in a pod the pod's own].")
    ] = None
    k8s_namespace: Annotated[str | None, Parameter(help="k8s: namespace [the pod's or the kubeconfig's].")] = None
    k8s_cpu: Annotated[str | None, Parameter(help="[1] k8s: processors of each worker, such as 500m or 4.")] = None
    k8s_memory: Annotated[str | None, Parameter(help="[2Gi] k8s: memory of each worker.")] = None
    k8s_secret: Annotated[
        str | None, Parameter(help="k8s: Secret whose keys become environment variables of the workers.")
    ] = None
    k8s_volume: Annotated[str | None, Parameter(help="k8s: CLAIM:/path, a volume claim for the workers.")] = None
    k8s_spec: Annotated[str | None, Parameter(help="k8s: file with a whole DaskCluster, YAML or JSON.")] = None
    k8s_scheduler: Annotated[
        str | None, Parameter(help="k8s-job: HOST[:PORT] of pod 0 for the others [DASKIM_SCHEDULER].")
    ] = None
    k8s_timeout: Annotated[float | None, Parameter(help="[300] k8s, k8s-job: seconds until all are there.")] = None

    def arguments(self) -> dict[str, Any]:
        """What `daskim.api.reduce` is given of them."""
        own = {field.name: getattr(self, field.name) for field in fields(self)[3:]}
        options = {name.replace("_", "-"): value for name, value in own.items() if value not in (None, False, ())}
        return {
            "cluster": self.cluster,
            "workers": self.workers,
            "memory": bytes_of(self.memory),
            "place_options": options,
        }

    def serves(self) -> bool:
        """Whether this process only worked for another, and is done: see `daskim.compute.serve_place`."""
        from daskim.compute import serve_place

        given = self.arguments()
        return serve_place(given.pop("cluster"), options=given.pop("place_options"), **given)


@Parameter(name="*")
@dataclass(frozen=True)
class CostOptions:
    """What `--plan` reckons hours and money with (`daskim.cost`)."""

    price_hour: Annotated[float | None, Parameter(help="--plan: money for one worker and hour, such as 0.10.")] = None
    bandwidth: Annotated[
        str | None,
        Parameter(help="--plan: bytes a second of a worker to images and run, such as 200MB [a local disk's]."),
    ] = None
    rates: Annotated[
        str | None,
        Parameter(help="--plan: JSON of `python -m tests.bench calibrate`, the speed of another machine [built in]."),
    ] = None

    def check(self, plan: bool) -> None:
        """Refuse what says nothing, or nothing sensible."""
        given = [name for name in ("price_hour", "bandwidth", "rates") if getattr(self, name) is not None]
        if given and not plan:
            raise SettingsError(f"--{given[0].replace('_', '-')} is for --plan", "Add --plan, or leave it out.")
        if self.price_hour is not None and not 0 <= self.price_hour < float("inf"):
            raise SettingsError(f"--price-hour {self.price_hour}: no price", "Give a number, such as 0.10.")
        bytes_of(self.bandwidth, "--bandwidth")


@Parameter(name="*")
@dataclass(frozen=True)
class TellOptions:
    """Who is told how a command ended, besides its exit code; see `daskim.outcome`."""

    metrics: Annotated[
        str | None, Parameter(help="Text file for Prometheus, written when the command ends, however it does.")
    ] = None
    notify: Annotated[
        str | None,
        Parameter(
            help="Webhook that is sent exit code and summary as JSON when the command ends.", env_var="DASKIM_NOTIFY"
        ),
    ] = None

    @property
    def asked(self) -> bool:
        return self.metrics is not None or self.notify is not None

    def check(self) -> None:
        """Refuse, before any work, what could never be told to."""
        from daskim.outcome import check_metrics, check_notify

        if self.metrics is not None:
            check_metrics(self.metrics)
        if self.notify is not None:
            check_notify(self.notify)


def number_of(text: str | None) -> int | float | str | None:
    """A number where the text is one; else the text, which the settings judge."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return text
    return int(value) if value is not None and value >= 1 and value.is_integer() else value


def run_options_of(
    run: str, inputs: Sequence[str], options: dict[str, Any], own: Sequence[str] | None = None
) -> dict[str, Any]:
    """The fsspec options for RUN: its own (`--run-option`), else those of the INPUT where both are of one kind."""
    if own:
        return storage_options(own, "--run-option")
    return options if _kind(run) in {_kind(item) for item in inputs} else Options()


def _kind(url: str) -> str:
    return url.partition("://")[0] if "://" in url else "file"


def storage_options(items: Sequence[str], flag: str = "--storage-option") -> dict[str, Any]:
    """--storage-option key=value, for fsspec; the values are not shown by `repr`."""
    from daskim.resolve import parse_assignment

    options = Options()
    for item in items:
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise SettingsError(f"{flag} is not key=value", f"Write {flag} key=value, such as anon=true.")
        options[key] = parse_assignment(f"{key}={value}")[1]
    return options


def bytes_of(text: str | None, flag: str = "--memory") -> int | None:
    """An amount of bytes such as 4GB; of a flow, such as 200MB/s."""
    if text is None:
        return None
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    amount = text.strip() if flag == "--memory" else text.strip().removesuffix("/s")
    number = amount.rstrip("BbKkMmGgIi ")
    try:
        value = float(number) * units[amount[len(number) :].strip().upper()]
    except (KeyError, ValueError):
        value = 0
    if not 1 <= value < float("inf"):
        raise SettingsError(
            f"{flag} {text}: no amount of {'memory' if flag == '--memory' else 'bytes'}",
            "Write a number with KB, MB or GB, such as 4GB.",
        )
    return int(value)


def size_text(value: float) -> str:
    """An amount of memory in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""
