"""A Kubernetes to test on: any that KUBECONFIG names and where the Dask operator runs.

    KUBECONFIG             of a user who may create namespaces
    DASKIM_K8S_SHARED      directory or fsspec URL that this process and pods both reach by this name
    DASKIM_K8S_IMAGE       image with this daskim [daskim:latest]

Everything is made in a namespace of its own, which is removed at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet
import pytest
from kubernetes_site import COMMAND, RULES, SETTINGS, Site


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    config, shared = os.environ.get("KUBECONFIG", ""), os.environ.get("DASKIM_K8S_SHARED", "")
    if not os.path.isfile(config):
        pytest.skip("no Kubernetes: KUBECONFIG does not name a file")
    if not shared:
        pytest.skip("DASKIM_K8S_SHARED does not name a directory or URL that pods reach too")
    pytest.importorskip("dask_kubernetes", reason="the extra k8s is not installed")
    name = f"daskim-test-{uuid.uuid4().hex[:6]}"
    made = Site(name, os.environ.get("DASKIM_K8S_IMAGE", "daskim:latest"), f"{shared.rstrip('/')}/{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kr8s warns of versions of Kubernetes that it was not tested with
        made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    rights = {"metadata": {"name": "driver", "namespace": name}}
    group = "rbac.authorization.k8s.io"
    made.create({"apiVersion": "v1", "kind": "ServiceAccount", **rights})
    made.create({"apiVersion": f"{group}/v1", "kind": "Role", **rights, "rules": RULES})
    bound = {"roleRef": {"apiGroup": group, "kind": "Role", "name": "driver"}}
    bound["subjects"] = [{"kind": "ServiceAccount", "name": "driver", "namespace": name}]  # type: ignore[assignment]
    made.create({"apiVersion": f"{group}/v1", "kind": "RoleBinding", **rights, **bound})
    yield made
    made.delete("namespaces", name)


@pytest.fixture(scope="session")
def source(site: Site, data: Path) -> str:
    """A part of CIFAR-10 where pods read it."""
    shard = pyarrow.parquet.ParquetFile(data / "cifar10_jpeg" / "train-00000-of-00005.parquet")
    table = next(shard.iter_batches(600))
    fs, path = fsspec.core.url_to_fs(site.url("source"))
    fs.makedirs(path, exist_ok=True)
    with fs.open(f"{path}/part.parquet", "wb") as file:
        pyarrow.parquet.write_table(pyarrow.Table.from_batches([table]), file)
    return site.url("source")


@pytest.fixture(scope="session")
def plan_hash(site: Site, source: str) -> str:
    """Of a run without any cluster."""
    words = [sys.executable, *COMMAND, source, "--run", site.url("laptop"), *SETTINGS, "--quiet"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return str(site.summary("laptop")["plan_hash"])
