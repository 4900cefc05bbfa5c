"""The CronJob of deploy/, made by kustomize and started as `kubectl create job --from=cronjob/...` would."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_site import COMMAND, Site, until

pytestmark = [
    pytest.mark.slow,
    # kr8s closes its connections when the process ends
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).parents[2]
SMALL = ("--limit=150", "--size=16x16", "--set=blocks.rows=50", "--no-report")


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which has kustomize, is not installed")
    words = [kubectl, "kustomize", str(ROOT / "deploy" / "overlays" / "operator")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def adapted(site: Site, manifest: dict[str, Any], run: str) -> dict[str, Any]:
    """A manifest in the tests' namespace, with their lake; the CronJob never starts by itself."""
    manifest = copy.deepcopy(manifest)
    manifest["metadata"]["namespace"] = site.namespace
    if manifest["kind"] == "ConfigMap" and "DASKIM_RUN" in manifest["data"]:
        manifest["data"] |= {"DASKIM_SOURCE": site.url("source"), "DASKIM_RUN": site.url(run)}
    if manifest["kind"] == "RoleBinding":
        for subject in manifest["subjects"]:
            subject["namespace"] = site.namespace
    if manifest["kind"] == "CronJob":
        manifest["spec"]["suspend"] = True
        (container,) = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        container["image"] = site.image
        container["resources"] = {"requests": {"cpu": "500m", "memory": "1Gi"}}
        sizes = {"--workers": "--workers=1", "--k8s-memory": "--k8s-memory=2Gi"}
        container["args"] = [sizes.get(word.partition("=")[0], word) for word in container["args"]] + [*SMALL]
    return manifest


def test_the_nightly_cronjob_makes_the_plan_of_a_laptop(
    site: Site, source: str, manifests: list[dict[str, Any]]
) -> None:
    laptop = [sys.executable, *COMMAND, source, "--run", site.url("laptop-nightly"), "--quiet", *SMALL, "--update"]
    job_file = ROOT / "jobs" / "nightly-dedup.toml"
    done = subprocess.run([*laptop, f"--job={job_file}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {}, "data": {}, "metadata": {"name": "daskim-lake"}}
    site.create(*(adapted(site, manifest, "nightly") for manifest in [secret, *manifests]))
    (cronjob,) = site.find("cronjobs")
    name = f"{cronjob['metadata']['name']}-now"
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": site.namespace}}
    site.create({**job, "spec": cronjob["spec"]["jobTemplate"]["spec"]})

    def over() -> dict[str, Any]:
        status: dict[str, Any] = site.find("jobs", name=name)[0].get("status", {})
        return status if status.get("succeeded") or status.get("failed") else {}

    status = until(over, 180, "the job is over")
    pods = [pod["metadata"]["name"] for pod in site.find("pods", f"batch.kubernetes.io/job-name={name}")]
    assert status.get("succeeded"), "\n".join(map(site.log, pods))
    assert site.summary("nightly")["plan_hash"] == site.summary("laptop-nightly")["plan_hash"]
    assert site.summary("nightly")["cluster"]["name"] == "k8s"
    assert site.clusters() == []
