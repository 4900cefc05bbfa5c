"""The Kubernetes manifests: valid, and right where a schema cannot see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kustomized import ROOT, WAYS, Build

from daskim import errors
from daskim.compute import describe_place
from daskim.jobs import reduce
from daskim.jobs.options import PlaceOptions
from daskim.resolve import job_file, resolve

Resource = dict[str, Any]
DEPLOY = ROOT / "deploy"
FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def of_kind(resources: list[Resource], kind: str) -> list[Resource]:
    return [one for one in resources if one["kind"] == kind]


def job_of(resources: list[Resource]) -> Resource:
    (cron,) = of_kind(resources, "CronJob")
    return cron["spec"]["jobTemplate"]["spec"]


def pod_of(resources: list[Resource]) -> Resource:
    return job_of(resources)["template"]["spec"]


def driver_of(resources: list[Resource]) -> Resource:
    (container,) = pod_of(resources)["containers"]
    return container


def quantity(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    assert match is not None, text
    assert match[2] in UNITS, text
    return float(match[1]) * UNITS[match[2]]


def words_of(resources: list[Resource]) -> list[str]:
    """The command line of the pod, with the values of its variables."""
    (places,) = (one for one in of_kind(resources, "ConfigMap") if one["metadata"]["name"].startswith("daskim-places"))

    def value(match: re.Match[str]) -> str:
        return places["data"][match[1]]

    return [re.sub(r"\$\((\w+)\)", value, word) for word in driver_of(resources)["args"]]


def asked(resources: list[Resource]) -> dict[str, Any]:
    """What daskim's own parser makes of the command line."""
    words = words_of(resources)
    assert words[:3] == ["python", "-m", "daskim.jobs.reduce"]
    _, bound, _ = reduce.app.parse_args(words[3:], exit_on_error=False, print_error=False)
    return {**bound.arguments, "place": bound.arguments["place"]}


def test_every_file_is_yaml_and_is_used() -> None:
    used = {"kustomization.yaml", "lake-secret.example.yaml"}
    for folder in (DEPLOY / way for way in WAYS):
        about = yaml.safe_load((folder / "kustomization.yaml").read_text())
        used |= {name for name in about.get("resources", ()) if name.endswith(".yaml")}
        used |= {patch["path"] for patch in about.get("patches", ())}
    files = sorted(DEPLOY.rglob("*.yaml"))
    assert {path.name for path in files} == used
    for path in files:
        assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text())), path


def test_the_schemas_of_kubernetes_accept_them(resources: list[Resource]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for resource in resources:
        validate.validate(resource, validate.latest_version(), strict=True)


def test_the_schemas_are_looked_at(build: Build) -> None:
    """A check that accepts everything would be none."""
    validate = pytest.importorskip("kubernetes_validate")
    (cron,) = of_kind(build("base"), "CronJob")
    wrong = {**cron, "spec": {**cron["spec"], "scheduel": "* * * * *"}}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, validate.latest_version(), strict=True)


def test_the_resources_of_each_way(build: Build) -> None:
    common = {"Namespace", "ServiceAccount", "ConfigMap", "CronJob", "NetworkPolicy"}
    kinds = {way: {one["kind"] for one in build(way)} for way in WAYS}
    assert kinds["base"] == common
    assert kinds["overlays/operator"] == common | {"Role", "RoleBinding"}
    assert kinds["overlays/indexed-job"] == common | {"Service"}  # and no rights at all


def test_names_are_short_enough(resources: list[Resource]) -> None:
    for resource in resources:
        name = resource["metadata"]["name"]
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= 52  # a CronJob's Jobs have 11 characters more
        assert resource["metadata"].get("namespace", "daskim") == "daskim"


def test_the_schedule(resources: list[Resource]) -> None:
    (cron,) = of_kind(resources, "CronJob")
    spec, job = cron["spec"], job_of(resources)
    fields = spec["schedule"].split()
    assert len(fields) == 5
    for field, (low, high) in zip(fields, FIELDS):
        assert all(low <= int(number) <= high for number in re.findall(r"\d+", field))
        assert re.fullmatch(r"(\*|\d+)(-\d+)?(/\d+)?(,\d+(-\d+)?)*", field)
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] >= 100  # the controller looks every 10 s; below, starts are missed
    assert spec["timeZone"] == "Etc/UTC"
    assert 0 < job["activeDeadlineSeconds"] < 24 * 3600
    assert job["ttlSecondsAfterFinished"] > 24 * 3600
    assert spec["failedJobsHistoryLimit"] >= spec["successfulJobsHistoryLimit"] >= 1
    assert job["backoffLimit"] >= 1


def test_exit_codes_are_those_of_daskim(resources: list[Resource]) -> None:
    job = job_of(resources)
    pod = pod_of(resources)
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy needs it
    assert job["podReplacementPolicy"] == "Failed"  # the only one that it allows
    rules = job["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob", "Count"]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    names = {container["name"] for container in pod["containers"]}
    codes = {}
    for rule in rules[1:]:
        about = rule["onExitCodes"]
        assert about["containerName"] in names
        assert about["operator"] == "In"
        assert about["values"] == sorted(set(about["values"]))
        codes[rule["action"]] = set(about["values"])
    final = (errors.SettingsError, errors.BadInputs, errors.ConditionMet, errors.StaleRun, errors.GuardTripped)
    assert codes["FailJob"] == {error.exit_code for error in final}
    assert codes["Count"] == {errors.SourceError.exit_code, errors.BlockFailed.exit_code, 143}
    every = {kind.exit_code for kind in errors.DaskimError.__subclasses__()}
    assert every <= codes["FailJob"] | codes["Count"]


def containers(resources: list[Resource]) -> Iterator[Resource]:
    pod = pod_of(resources)
    yield from [*pod["containers"], *pod.get("initContainers", [])]


def test_pods_have_no_more_rights_than_they_need(resources: list[Resource]) -> None:
    pod = pod_of(resources)
    user = re.search(r"USER (\d+):(\d+)", (DEPLOY / "Dockerfile").read_text())
    assert user is not None
    secure = pod["securityContext"]
    assert (secure["runAsUser"], secure["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert secure["runAsNonRoot"] is True
    assert secure["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(resources):
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    (account,) = of_kind(resources, "ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False
    assert pod.get("automountServiceAccountToken", False) is bool(of_kind(resources, "Role"))
    (space,) = of_kind(resources, "Namespace")
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_resources_are_asked_for_and_bounded(resources: list[Resource]) -> None:
    for container in containers(resources):
        wanted, most = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory", "ephemeral-storage"} <= set(wanted)
        assert wanted["memory"] == most["memory"]  # else the node may end it for what it was promised
        assert all(quantity(wanted[name]) <= quantity(most[name]) for name in set(wanted) & set(most))
    for volume in pod_of(resources)["volumes"]:
        if "emptyDir" in volume:
            assert quantity(volume["emptyDir"]["sizeLimit"]) <= quantity(most["ephemeral-storage"])


def test_volumes_and_references_lead_somewhere(resources: list[Resource]) -> None:
    pod = pod_of(resources)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(resources, "ConfigMap")}
    for container in containers(resources):
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == set(volumes)
        assert len(set(mounts.values())) == len(mounts)
        assert mounts["tmp"] == "/tmp"  # the only place that can be written to
        for source in container["envFrom"]:
            if "configMapRef" in source:
                assert source["configMapRef"]["name"] in maps
            else:
                assert source["secretRef"] == {"name": "daskim-lake", "optional": True}
    assert volumes["job"]["configMap"]["name"] in maps
    example = yaml.safe_load((DEPLOY / "lake-secret.example.yaml").read_text())
    assert example["metadata"] == {"name": "daskim-lake", "namespace": "daskim"}
    assert not of_kind(resources, "Secret")


def test_the_job_file_is_the_shipped_one_and_is_valid(resources: list[Resource], tmp_path: Path) -> None:
    name = pod_of(resources)["volumes"][1]["configMap"]["name"]
    (data,) = (one["data"] for one in of_kind(resources, "ConfigMap") if one["metadata"]["name"] == name)
    ((file, text),) = data.items()
    assert text == (ROOT / "jobs" / file).read_text()
    (tmp_path / file).write_text(text)
    assert resolve([(file, job_file(str(tmp_path / file)))]).method == "similarity"
    mount = next(one for one in driver_of(resources)["volumeMounts"] if one["name"] == "job")
    assert asked(resources)["job"] == f"{mount['mountPath']}/{file}"


def test_daskim_takes_the_command_line(resources: list[Resource]) -> None:
    given = asked(resources)
    assert given["inputs"] == ("s3://lake/images",) or given["inputs"] == ["s3://lake/images"]
    assert given["run"] == "s3://lake/runs/nightly"
    assert given["update"] is True
    place: PlaceOptions = given["place"]
    about = place.arguments()
    described = describe_place(
        about["cluster"], workers=about["workers"], memory=about["memory"], options=about["place_options"]
    )
    assert described.workers >= 1


def test_the_operators_driver_has_the_rights_of_the_code_and_no_others(build: Build) -> None:
    resources = build("overlays/operator")
    ((role,), (binding,)) = of_kind(resources, "Role"), of_kind(resources, "RoleBinding")
    found = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert found == {
        ("kubernetes.dask.org", "daskclusters"): {"create", "get", "list", "delete"},
        ("kubernetes.dask.org", "daskworkergroups"): {"list"},
        ("", "pods"): {"get", "list"},
        ("", "services"): {"get", "list"},
        ("", "pods/log"): {"get"},
        ("", "events"): {"list"},
    }
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "daskim", "namespace": "daskim"}]
    place = asked(resources)["place"]
    assert place.cluster == "k8s"
    assert place.k8s_secret == "daskim-lake"  # what the workers need to reach the lake
    assert place.k8s_timeout < job_of(resources)["activeDeadlineSeconds"]


def test_the_pods_of_an_indexed_job_find_one_another(build: Build) -> None:
    resources = build("overlays/indexed-job")
    job, pod, place = job_of(resources), pod_of(resources), asked(resources)["place"]
    (service,) = of_kind(resources, "Service")
    assert place.cluster == "k8s-job"
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == place.workers + 1
    assert job["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert pod["subdomain"] == service["metadata"]["name"]
    labels = job["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert [port["port"] for port in service["spec"]["ports"]] == [8786]
    limits = driver_of(resources)["resources"]["limits"]
    assert float(limits["cpu"]).is_integer()  # threads of a worker


def test_the_network_policy_is_about_these_pods(resources: list[Resource]) -> None:
    labels = job_of(resources)["template"]["metadata"]["labels"]
    first = of_kind(resources, "NetworkPolicy")[0]["spec"]
    assert first["podSelector"]["matchLabels"].items() <= labels.items()
    assert set(first["policyTypes"]) == {"Ingress", "Egress"}
    assert [list(peer) for rule in first["ingress"] for peer in rule["from"]] == [["podSelector"]]
    ports = {port["port"] for rule in first["egress"] for port in rule.get("ports", ())}
    assert ports == {53, 443, 6443}


def test_pods_that_the_operator_makes_have_the_label_of_the_policy() -> None:
    from daskim.compute.k8s.spec import LABELS

    (policy,) = yaml.safe_load_all((DEPLOY / "base" / "networkpolicy.yaml").read_text())
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= LABELS.items()
