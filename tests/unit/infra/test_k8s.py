"""The chart: what it renders is valid Kubernetes, least of everything, and settings that the services understand."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from infra.local.certificates import Authority
from streams.settings import Settings
from streams.settings.reading import variables
from streams.usecases import FRAUD

CHART = Path(__file__).parents[3] / "infra" / "k8s" / "headrace"
GO_BIN = Path.home() / "go" / "bin"  # where `go install` puts it
HELM = shutil.which("helm", path=f"{os.environ.get('PATH', '')}:{GO_BIN}")
pytestmark = pytest.mark.skipif(
    HELM is None, reason="no helm here, neither on the PATH nor in ~/go/bin, where `go install` puts it"
)

VERSION = "1.34.0"  # of Kubernetes: a recent one that providers have
GIVEN = (
    "kafka=kafka.kafka:9092",
    "cassandra=cassandra.cassandra:9042",
    "secrets.redis.name=redis",
    "secrets.modelKey.name=models",
    "secrets.feedbackToken.name=feedback",
)
CUSTOM = {
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
}
"""Kinds that Kubernetes itself does not know."""

Object = dict[str, Any]


def helm(*values: str, files: tuple[Path, ...] = ()) -> "subprocess.CompletedProcess[str]":
    given = [part for value in values for part in ("--set", value)]
    given += [part for file in files for part in ("--values", str(file))]
    return subprocess.run(
        [HELM or "", "template", "r", str(CHART), "--kube-version", VERSION, *given],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@cache
def rendered(*values: str) -> tuple[Object, ...]:
    """The objects of the chart, with everything that may be switched on."""
    done = helm(*GIVEN, "autoscaling.enabled=true", "monitoring.enabled=true", *values)
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def of(*kinds: str, values: tuple[str, ...] = ()) -> dict[str, Object]:
    """The objects of some kinds by the service that they are for."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one
        for one in rendered(*values)
        if one["kind"] in kinds and "labels" in one["metadata"]
    }


def pods(values: tuple[str, ...] = ()) -> dict[str, Object]:
    return {name: one["spec"]["template"] for name, one in of("StatefulSet", "Deployment", values=values).items()}


def matches(selector: Object, pod: Object) -> bool:
    return bool(selector["matchLabels"].items() <= pod["metadata"]["labels"].items())


def test_all_of_it_is_valid() -> None:
    """Every object fits Kubernetes' own schema, no field too many; the others are of kinds that are expected."""
    kinds = set()
    for one in rendered():
        if (one["apiVersion"], one["kind"]) in CUSTOM:
            kinds.add((one["apiVersion"], one["kind"]))
        else:
            kubernetes_validate.validate(one, VERSION, strict=True)
    assert kinds == CUSTOM


def test_every_service_is_run() -> None:
    """Whoever has partitions has a lasting name, by which its group knows it again; no name is too long."""
    assert set(of("StatefulSet")) == {"worker", "history", "learner", "matured"}
    assert set(of("Deployment")) == {"feedback"}
    for service, pod in pods().items():
        (container,) = pod["spec"]["containers"]
        assert container["command"] == ["python", "-m", f"services.{service}", "fraud"]
        assert (Path(__file__).parents[3] / "services" / service / "__main__.py").exists()


def test_settings_are_understood() -> None:
    """The services would start with the variables they are given, and know every one of them."""
    secrets = {"HEADRACE_REDIS": "redis://u:p@r:6379/0", "HEADRACE_MODEL_KEY": "k" * 32, "HEADRACE_INSTANCE": "r-0"}
    secrets["HEADRACE_FEEDBACK_TOKEN"] = "t" * 32
    known = variables(Settings)
    for service, pod in pods(("deployment=v2", "publish=true", "partitions=24")).items():
        given = {one["name"]: one.get("value", secrets.get(one["name"])) for one in pod["spec"]["containers"][0]["env"]}
        assert given.keys() <= known
        settings = Settings.read(given)
        assert (settings.deployment, settings.publish, settings.partitions) == ("v2", True, 24)
        assert settings.metrics_port == pod["spec"]["containers"][0]["ports"][0]["containerPort"]
        assert bool(settings.model_key) == (service in ("worker", "learner"))
        assert bool(settings.feedback_token) == (service == "feedback")
        assert bool(settings.instance) == (service != "feedback")


def test_secrets_are_references() -> None:
    """Passwords, keys and tokens come out of Secrets that somebody else has made; the chart makes none."""
    assert not [one for one in rendered() if one["kind"] == "Secret"]
    wanted = {
        "HEADRACE_REDIS": ("redis", "url"),
        "HEADRACE_MODEL_KEY": ("models", "key"),
        "HEADRACE_FEEDBACK_TOKEN": ("feedback", "token"),
    }
    found = {}
    for pod in pods().values():
        for one in pod["spec"]["containers"][0]["env"]:
            if one["name"] in wanted:
                reference = one["valueFrom"]["secretKeyRef"]
                found[one["name"]] = (reference["name"], reference["key"])
    assert found == wanted


def test_a_service_may_have_users_and_settings_of_its_own() -> None:
    """What is said of one service comes before what is said of all; certificates are files that nobody else reads."""
    values = (
        "secretSettings.HEADRACE_PASSWORD.name=everybody",
        "secretSettings.HEADRACE_PASSWORD.key=password",
        "services.learner.secretSettings.HEADRACE_PASSWORD.name=learner",
        "services.learner.secretSettings.HEADRACE_PASSWORD.key=password",
        "services.worker.settings.HEADRACE_COLOUR=blue",
        "certificates=tls",
    )
    for service, pod in pods(values).items():
        (container,) = pod["spec"]["containers"]
        given = {one["name"]: one for one in container["env"]}
        assert len(given) == len(container["env"]), "each variable once"
        password = given["HEADRACE_PASSWORD"]["valueFrom"]["secretKeyRef"]["name"]
        assert password == ("learner" if service == "learner" else "everybody")
        assert ("HEADRACE_COLOUR" in given) == (service == "worker")
        (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "certificates")
        assert volume["secret"] == {"secretName": "tls", "defaultMode": 0o440}
    for one in rendered(*values):
        if (one["apiVersion"], one["kind"]) not in CUSTOM:
            kubernetes_validate.validate(one, VERSION, strict=True)


def test_secured_servers(tmp_path: Path) -> None:
    """With secured.yaml each service comes by TLS, as the user of its name, whose password is out of its own Secret."""
    authority = str(Authority.made(tmp_path).path)
    done = helm(*GIVEN, files=(CHART.parent / "secured.yaml",))
    assert done.returncode == 0, done.stderr
    of_pods = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] in ("StatefulSet", "Deployment")]
    assert len(of_pods) == len(pods())
    for one in of_pods:
        (container,) = one["spec"]["template"]["spec"]["containers"]
        (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "certificates")
        user, given = f"fraud-{container['name']}", {"HEADRACE_REDIS": "rediss://u:p@r:6379/0"}
        for variable in container["env"]:
            if variable["name"].endswith("_PASSWORD"):
                assert variable["valueFrom"]["secretKeyRef"] == {"name": user, "key": "password"}
                given[variable["name"]] = "secret"
            elif "value" in variable:
                given[variable["name"]] = variable["value"].replace(f"{mount['mountPath']}/ca.crt", authority)
        settings = Settings.read(given)
        assert (settings.kafka.security, settings.kafka.user, settings.kafka.ca) == ("sasl_tls", user, authority)
        needs = "HEADRACE_CASSANDRA" in given
        assert (settings.cassandra.user, settings.cassandra.ca) == ((user, authority) if needs else ("", ""))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("secret.redis.name=x", "secret"),
        ("partitions=none", "partitions"),
        ("services.learner.replicas=2", "replicas"),
        ("deployment=V2", "deployment"),
        ("settings.KAFKA=x", "KAFKA"),
        ("autoscaling.lagThreshold.learner=5", "learner"),
    ],
)
def test_a_wrong_value_is_named(wrong: str, named: str) -> None:
    """What the chart does not know, or cannot be, ends it in words that say which."""
    done = helm(*GIVEN, wrong)
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        ("kafka", "kafka: the address"),
        ("cassandra", "cassandra: its address"),
        ("secrets.redis.name", "secrets.redis.name: the name of the Secret that has HEADRACE_REDIS"),
        ("secrets.modelKey.name", "secrets.modelKey.name: the name of the Secret that has HEADRACE_MODEL_KEY"),
        ("secrets.feedbackToken.name", "secrets.feedbackToken.name: the name of the Secret"),
    ],
)
def test_what_is_missing_is_named(left_out: str, named: str) -> None:
    """A server or secret that was not given ends it, in words that say which."""
    done = helm(*(value for value in GIVEN if not value.startswith(f"{left_out}=")))
    assert done.returncode != 0
    assert named in done.stderr


def test_processes_may_do_next_to_nothing() -> None:
    """Not root, nothing to write but /tmp, no capabilities, no token of Kubernetes, an end to their memory."""
    for pod in pods().values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert [one["mountPath"] for one in container["volumeMounts"]] == ["/tmp"]


def test_processes_are_probed() -> None:
    """Alive by /livez, from the first on, ready by /readyz; there is time for the last checkpoint."""
    for pod in pods().values():
        (container,) = pod["spec"]["containers"]
        paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
        assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
        assert pod["spec"]["terminationGracePeriodSeconds"] > 20


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "Service", "NetworkPolicy"])
def test_what_belongs_to_a_service_finds_its_pods(kind: str) -> None:
    """Budget, address and policy of each service pick its pods and no others."""
    select: dict[str, Callable[[Object], Object]] = {
        "PodDisruptionBudget": lambda spec: spec["selector"],
        "Service": lambda spec: {"matchLabels": spec["selector"]},
        "NetworkPolicy": lambda spec: spec["podSelector"],
    }
    found = of(kind)
    assert found.keys() == pods().keys()
    for service, one in found.items():
        picked = {name for name, pod in pods().items() if matches(select[kind](one["spec"]), pod)}
        assert picked == {service}


def test_only_what_is_needed_is_let_through() -> None:
    """Nothing by default; each service reaches the servers that it needs, and only labels come in from outside."""
    (nothing,) = (one for one in rendered() if one["metadata"]["name"] == "r-nothing")
    assert nothing["spec"].keys() == {"podSelector", "policyTypes"}
    assert all(matches(nothing["spec"]["podSelector"], pod) for pod in pods().values())
    reached = {
        service: {port["port"] for rule in one["spec"]["egress"] for port in rule["ports"]} - {53}
        for service, one in of("NetworkPolicy").items()
    }
    assert reached == {
        "worker": {9092, 6379, 9042},
        "history": {9092, 9042},
        "learner": {9092},
        "matured": {9092},
        "feedback": {9092},
    }
    entered = {
        service: {port["port"] for rule in one["spec"]["ingress"] for port in rule["ports"]}
        for service, one in of("NetworkPolicy").items()
    }
    assert {service for service, ports in entered.items() if ports != {9464}} == {"feedback"}


def test_replicas_follow_the_lag_up_to_the_partitions() -> None:
    """KEDA asks for the groups that the services are in, and never has more replicas than partitions."""
    scaled = of("ScaledObject", values=("partitions=6", "deployment=v2"))
    groups = {service: one["spec"]["triggers"][0]["metadata"]["consumerGroup"] for service, one in scaled.items()}
    usecase = FRAUD.deployed("v2", False)
    assert groups == {"worker": usecase.group("stages"), "history": usecase.group("history")}
    sets = of("StatefulSet", values=("partitions=6", "deployment=v2"))
    for service, one in scaled.items():
        assert one["spec"]["scaleTargetRef"]["name"] == sets[service]["metadata"]["name"]
        assert one["spec"]["maxReplicaCount"] == 6
        assert "replicas" not in sets[service]["spec"], "an upgrade would undo the scaling"
    assert sets["learner"]["spec"]["replicas"] == 1


def test_the_operator_gets_the_same_rules() -> None:
    """PrometheusRule has all that infra/prometheus has, its templates untouched; targets get `job` and `usecase`."""
    (rules,) = (one for one in rendered() if one["kind"] == "PrometheusRule")
    files = sorted((CHART.parents[1] / "prometheus" / "rules").glob("*.yml"))
    assert rules["spec"]["groups"] == [one for path in files for one in yaml.safe_load(path.read_text())["groups"]]
    (monitor,) = (one for one in rendered() if one["kind"] == "PodMonitor")
    assert all(matches(monitor["spec"]["selector"], pod) for pod in pods().values())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert {one["targetLabel"] for one in endpoint["relabelings"]} == {"job", "instance", "usecase"}
