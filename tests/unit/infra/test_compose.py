import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from infra.docker.certificates import SERVERS, VALID
from infra.docker.env import LOCAL_IMAGES, PASSWORDS, SECRETS, SECURE_LOCAL, main
from infra.docker.local.images import IMAGES
from infra.docker.users import ADMIN, USERS, password_of
from infra.local.kafka import BEHAVIOUR
from services.rights.table import table, user
from streams.settings import Settings
from streams.settings.reading import variables
from streams.usecases import FRAUD

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
SECURE_TEXT = (ROOT / "docker-compose.secure.yml").read_text(encoding="utf-8")
SECURED: dict[str, Any] = yaml.safe_load(SECURE_TEXT)["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


def test_every_variable_is_in_the_example() -> None:
    """What compose reads stands in .env.example, and nothing stands there that it does not read."""
    read = set(re.findall(r"\$\{(\w+)", TEXT + SECURE_TEXT)) | {
        name for name, value in COMPOSE["x-settings"].items() if value is None
    }
    there = set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert there == read | {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "COMPOSE_FILE"}


def test_every_setting_can_be_set() -> None:
    """No setting is out of reach, but those of a login (a secured network has them) and a name for each instance."""
    spelt = {name for service in OURS for name in SERVICES[service]["environment"]}
    login = {name for name in variables(Settings) if re.fullmatch(r"HEADRACE_(KAFKA|CASSANDRA)_\w+", name)}
    assert spelt == variables(Settings) - login - {"HEADRACE_INSTANCE"}


def test_the_example_has_the_same_defaults() -> None:
    """An image or port that .env does not name is the one that .env.example shows."""
    shown = dict(re.findall(r"^#?(\w+)=(.*)$", EXAMPLE, re.MULTILINE))
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", TEXT):
        assert shown[name] == default, name


@pytest.mark.parametrize(
    ("name", "value"), re.findall(r"^#(HEADRACE_\w+)=(.*)$", EXAMPLE.split("Settings of the services")[1], re.MULTILINE)
)
def test_the_example_shows_each_settings_default(name: str, value: str) -> None:
    """Who takes the hash sign away changes nothing."""
    assert Settings.read({name: value}) == Settings()


def test_no_secret_has_a_value() -> None:
    """Neither file holds a secret, and compose refuses to go on without one and names it."""
    for name in SECRETS:
        assert re.search(rf"^{name}=$", EXAMPLE, re.MULTILINE)
        assert set(re.findall(rf"\$\{{{name}(\W[^}}]*)\}}", TEXT)) == {f":?{name} is not set, see .env.example"}


def test_who_holds_a_secret() -> None:
    """A service has the secrets it needs and no other's."""
    holders = {
        name: {service for service in SERVICES if f"${{{name}:" in str(SERVICES[service].get("environment", ""))}
        for name in SECRETS
    }
    assert holders == {
        "HEADRACE_MODEL_KEY": {"worker", "learner"},
        "HEADRACE_FEEDBACK_TOKEN": {"feedback"},
        "GRAFANA_PASSWORD": {"grafana"},
    }


def test_nothing_is_open_to_other_machines() -> None:
    """Every published port is at the loopback address."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:$") for port in published)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_has_its_limits(name: str) -> None:
    """Each has a memory limit, logs that end, a health check (but what ends by itself), and gains no rights."""
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["logging"]["options"]["max-size"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert ("test" in service["healthcheck"]) == (name != "init")
    if name in OURS:
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_what_waits_for_what() -> None:
    """Servers are healthy before the job that fills them, and that has ended before any service starts."""
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert {server: how["condition"] for server, how in waits["init"].items()} == {
        "kafka": "service_healthy",
        "cassandra": "service_healthy",
    }
    for name in OURS - {"init"}:
        assert waits[name]["init"]["condition"] == "service_completed_successfully"


def test_kafka_behaves_as_the_local_one() -> None:
    """What our use of a broker asks of it is in the container's environment too."""
    environment = SERVICES["kafka"]["environment"]
    for key, value in BEHAVIOUR.items():
        assert environment["KAFKA_" + key.upper().replace(".", "_")] == str(value)


def test_prometheus_scrapes_the_services() -> None:
    """Who is scraped is a service of the file, and each of ours that stays is scraped."""
    config = yaml.safe_load((ROOT / "infra/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    names = {name for job in config["scrape_configs"] for found in job["dns_sd_configs"] for name in found["names"]}
    assert names == OURS - {"init", "simulator"}


def test_local_images_are_built() -> None:
    """What `make env IMAGES=local` names is what `make images` builds."""
    assert {*LOCAL_IMAGES.values(), *SECURE_LOCAL.values()} <= {tag for image in IMAGES for tag in image.tags}
    assert LOCAL_IMAGES.keys() <= set(re.findall(r"\$\{(\w+_IMAGE):-", TEXT))


def test_env_is_for_its_owner_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Secrets are new each time, in a file that nobody else can read; one that is there is never written over."""
    one, other = tmp_path / "one", tmp_path / "other"
    assert main(["--local", str(one)]) == main([str(other)]) == 0
    assert one.stat().st_mode & 0o777 == 0o600
    values, others = (dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE)) for path in (one, other))
    assert all(len(values[name]) == 64 and values[name] != others[name] for name in SECRETS)
    assert (values["KAFKA_IMAGE"], values["COMPOSE_PROFILES"]) == ("local/kafka:4.3.1", "observe,demo")
    assert (others["KAFKA_IMAGE"], others["COMPOSE_PROFILES"]) == ("apache/kafka:4.3.1", "observe,grafana,demo")
    said = capsys.readouterr()
    assert values["HEADRACE_MODEL_KEY"] not in said.out + said.err
    before = one.read_text()
    assert main([str(one)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert one.read_text() == before


def test_every_setting_of_a_login_can_be_set() -> None:
    """What the plain file leaves out the secured one has, but a client's certificate, in place of which is a user."""
    spelt = {name for one in SECURED.values() for name in one["environment"]}
    login = {name for name in variables(Settings) if re.fullmatch(r"HEADRACE_(KAFKA|CASSANDRA)_\w+", name)}
    assert login - spelt == {"HEADRACE_KAFKA_CERTIFICATE", "HEADRACE_KAFKA_KEY"}


def test_users_are_those_of_the_table() -> None:
    """Each user of the table of rights is made, and each service comes as the one that is named like it."""
    assert set(USERS) == set(table(FRAUD, 1))
    for name in OURS - {"init"}:
        assert SECURED[name]["environment"]["HEADRACE_KAFKA_USER"] == user(FRAUD, name)


def test_who_holds_a_password() -> None:
    """A service has its own and no other's; the administrator's is for the job that makes users and who checks it."""
    for name, service in SECURED.items():
        held = set(re.findall(r"\$\{(\w+_PASSWORD)", str(service)))
        own = {password_of(name)} if name in USERS else {password_of(ADMIN)} if name == "valkey" else set()
        assert held == (set(PASSWORDS) if name == "init" else own)


def test_no_password_has_a_value() -> None:
    """The example has none, and compose names one that is missing."""
    for name in ("CERTIFICATES", *PASSWORDS):
        assert re.search(rf"^#{name}=$", EXAMPLE, re.MULTILINE)
        assert f"${{{name}:?{name} is not set, see .env.example}}" in SECURE_TEXT


def test_everyone_has_the_authority_and_a_server_its_key() -> None:
    """Nobody but the server itself, and the administrator's job, is given a private key; all are read-only."""
    keys = {
        name: {Path(mount["source"]).name for mount in service["volumes"]} - {"authority.pem"}
        for name, service in SECURED.items()
    }
    assert keys == {name: {f"{name}.pem"} for name in SERVERS} | {"init": {"admin.pem"}} | {
        name: set() for name in OURS - {"init"}
    }
    for name, service in SECURED.items():
        assert any(mount["target"] == "/etc/headrace/authority.pem" for mount in service["volumes"]), name
        assert all(mount["read_only"] and mount["type"] == "bind" for mount in service["volumes"])


def test_no_server_listens_in_clear() -> None:
    """Every listener of Kafka is secured, Valkey has none but by TLS, Cassandra takes no connection without it."""
    kafka = SECURED["kafka"]["environment"]
    listeners = {one.partition(":")[0] for one in kafka["KAFKA_LISTENERS"].split(",")}
    protocols = dict(one.split(":") for one in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert protocols.keys() == listeners
    assert set(protocols.values()) == {"SASL_SSL", "SSL"}
    for name in (name for name, protocol in protocols.items() if protocol == "SSL"):
        assert kafka[f"KAFKA_LISTENER_NAME_{name}_SSL_CLIENT_AUTH"] == "required"
    valkey = SECURED["valkey"]["command"]
    assert valkey[valkey.index("--port") + 1] == "0"
    cassandra = SECURED["cassandra"]["environment"]["JVM_OPTS"].split()
    for options, switch in (("client", "enabled=true"), ("server", "internode_encryption=all")):
        prefix = f"-Dcassandra.settings.{options}_encryption_options"
        assert {f"{prefix}.{switch}", f"{prefix}.optional=false"} <= set(cassandra)


def test_valkey_is_otherwise_the_same() -> None:
    """What the plain command says the secured one says too."""
    command = SERVICES["valkey"]["command"][1:]
    at = SECURED["valkey"]["command"].index(command[0])
    assert SECURED["valkey"]["command"][at : at + len(command)] == command


def test_a_secured_env(tmp_path: Path) -> None:
    """It names both files and has passwords of its own; keys are in a folder that nobody else enters."""
    assert main(["--local", "--secure", str(tmp_path / ".env")]) == 0
    values = dict(re.findall(r"^(\w+)=(.*)$", (tmp_path / ".env").read_text(), re.MULTILINE))
    assert values["COMPOSE_FILE"] == "docker-compose.yml:docker-compose.secure.yml"
    assert values["VALKEY_IMAGE"] == "local/redis:7"
    assert len({values[name] for name in PASSWORDS}) == len(PASSWORDS)
    assert all(re.fullmatch("[0-9a-f]{64}", values[name]) for name in PASSWORDS)
    folder = Path(values["CERTIFICATES"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == {f"{name}.pem" for name in (*SERVERS, ADMIN, "authority")}
    assert b"PRIVATE KEY" not in (folder / "authority.pem").read_bytes()
    for name in SERVERS:
        certificate = x509.load_pem_x509_certificates((folder / f"{name}.pem").read_bytes())[0]
        hosts = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert hosts.get_values_for_type(x509.DNSName) == [name, "localhost"]
        assert certificate.not_valid_after_utc - certificate.not_valid_before_utc > VALID
