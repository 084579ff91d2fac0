"""Settings: every variable is read, and a wrong one fails with its name."""

import ssl
from dataclasses import FrozenInstanceError, fields
from urllib.parse import urlsplit

import certifi
import pytest
from redis.asyncio import ConnectionPool

from streams.settings import REDIS_OPTIONS, CassandraAccess, KafkaAccess, Settings, SettingsError
from streams.settings.reading import variables
from streams.stores.redis_nodes import nodes

KEY = "0123456789abcdef0123456789abcdef"
CA = certifi.where()

GOOD = {
    "HEADRACE_KAFKA": ("kafka", "broker.internal:19092", KafkaAccess("broker.internal:19092")),
    "HEADRACE_REDIS": ("redis", "redis://cache:6380/1", "redis://cache:6380/1"),
    "HEADRACE_CASSANDRA": ("cassandra", "[::1]:9043", CassandraAccess("[::1]:9043")),
    "HEADRACE_KEYSPACE": ("keyspace", "headrace_test", "headrace_test"),
    "HEADRACE_DEPLOYMENT": ("deployment", "v2", "v2"),
    "HEADRACE_PUBLISH": ("publish", "yes", True),
    "HEADRACE_MODEL_KEY": ("model_key", KEY, KEY.encode()),
    "HEADRACE_REPLICATION": ("replication", "3", 3),
    "HEADRACE_PARTITIONS": ("partitions", "12", 12),
    "HEADRACE_CHECKPOINT_SECONDS": ("checkpoint_seconds", "0.25", 0.25),
    "HEADRACE_SNAPSHOT_SECONDS": ("snapshot_seconds", "5", 5.0),
    "HEADRACE_ENTITY_SNAPSHOT_SECONDS": ("entity_snapshot_seconds", "60", 60.0),
    "HEADRACE_SESSION_SECONDS": ("session_seconds", "6", 6.0),
    "HEADRACE_LABEL_WAIT_SECONDS": ("label_wait_seconds", "1.5", 1.5),
    "HEADRACE_LABEL_HORIZON_SECONDS": ("label_horizon_seconds", "604800", 604800.0),
    "HEADRACE_WATERMARK_WAIT_SECONDS": ("watermark_wait_seconds", "90", 90.0),
    "HEADRACE_MAX_AHEAD_MS": ("max_ahead_ms", "1000", 1000),
    "HEADRACE_MAX_ENTITIES": ("max_entities", "5000", 5000),
    "HEADRACE_INSTANCE": ("instance", "worker-0", "worker-0"),
    "HEADRACE_STALL_SECONDS": ("stall_seconds", "30", 30.0),
    "HEADRACE_METRICS_HOST": ("metrics_host", "::1", "::1"),
    "HEADRACE_METRICS_PORT": ("metrics_port", "9400", 9400),
    "HEADRACE_FEEDBACK_HOST": ("feedback_host", "0.0.0.0", "0.0.0.0"),
    "HEADRACE_FEEDBACK_PORT": ("feedback_port", "8000", 8000),
    "HEADRACE_FEEDBACK_TOKEN": ("feedback_token", KEY, KEY.encode()),
}

KAFKA = {
    "HEADRACE_KAFKA_SECURITY": "sasl_tls",
    "HEADRACE_KAFKA_USER": "worker",
    "HEADRACE_KAFKA_PASSWORD": "HUSH",
    "HEADRACE_KAFKA_CA": CA,
}
CASSANDRA = {"HEADRACE_CASSANDRA_USER": "worker", "HEADRACE_CASSANDRA_PASSWORD": "HUSH", "HEADRACE_CASSANDRA_CA": CA}
CLIENT = {"HEADRACE_KAFKA_CERTIFICATE": CA, "HEADRACE_KAFKA_KEY": CA}

MISFITS: list[tuple[str, dict[str, str]]] = [
    # the variable named, and what is set
    *[(name, {key: value for key, value in KAFKA.items() if key != name})
      for name in ("HEADRACE_KAFKA_SECURITY", "HEADRACE_KAFKA_USER", "HEADRACE_KAFKA_PASSWORD")],
    ("HEADRACE_KAFKA_USER", {"HEADRACE_KAFKA_SECURITY": "sasl_tls"}),
    ("HEADRACE_KAFKA_SECURITY", KAFKA | {"HEADRACE_KAFKA_SECURITY": "tls"}),
    ("HEADRACE_KAFKA_SECURITY", KAFKA | {"HEADRACE_KAFKA_SECURITY": "plaintext"}),
    ("HEADRACE_KAFKA_SECURITY", KAFKA | {"HEADRACE_KAFKA_SECURITY": "SASL_SSL"}),
    ("HEADRACE_KAFKA_SECURITY", {"HEADRACE_KAFKA_CA": CA}),
    ("HEADRACE_KAFKA_CA", KAFKA | {"HEADRACE_KAFKA_CA": "/no/such/ca.pem"}),
    ("HEADRACE_KAFKA_CA", KAFKA | {"HEADRACE_KAFKA_CA": "/"}),
    ("HEADRACE_KAFKA_CA", KAFKA | {"HEADRACE_KAFKA_CA": __file__}),
    ("HEADRACE_KAFKA_PASSWORD", KAFKA | {"HEADRACE_KAFKA_PASSWORD": "HUSH\n"}),
    ("HEADRACE_KAFKA_KEY", KAFKA | {"HEADRACE_KAFKA_CERTIFICATE": CA}),
    ("HEADRACE_KAFKA_CERTIFICATE", KAFKA | {"HEADRACE_KAFKA_KEY": CA}),
    ("HEADRACE_KAFKA_CERTIFICATE", KAFKA | CLIENT),  # which has no key in it
    ("HEADRACE_KAFKA_CERTIFICATE", KAFKA | CLIENT | {"HEADRACE_KAFKA_KEY": "/no/such/key.pem"}),
    *[(name, {key: value for key, value in CASSANDRA.items() if key != name}) for name in CASSANDRA],
    ("HEADRACE_CASSANDRA_CA", CASSANDRA | {"HEADRACE_CASSANDRA_CA": "/no/such/ca.pem"}),
    ("HEADRACE_REDIS", {"HEADRACE_REDIS": "rediss://u:HUSH@cache?ssl_ca_certs=/no/such/ca.pem"}),
]  # fmt: skip

WRONG_REDIS = [
    "", "localhost:6379", "http://HUSH@cache:6379", "redis:cache", "redis://", "redis:///0", "redis://:6379/0",
    "redis://:HUSH@cache:notaport", "redis://:HUSH@cache:65536/0", "redis://:HUSH@[bad", "redis://:HUSH@cache/first",
    "redis://:HUSH@cache/-1", "redis://:HUSH@cache?socket_timeout=x", "redis://:HUSH@cache?socket_timeout=",
    "redis://:HUSH@cache?db", "redis://:HUSH@cache?colour=red", "redis://:HUSH@cache/0?db=x", "redis://:HUSH@cache#",
    "redis://:HUSH/HUSH@cache/0", "redis://:1/HUSH@cache/0", "redis://u:1/2HUSH@cache:1/0", "redis://:a?HUSH@cache/0",
    "redis://u:1?HUSH=1@cache/0", "redis://u:1#HUSH@cache/0", "redis://:[HUSH@cache/0", "redis://:HUSH℀@cache/0",
    "redis://:HUSH@cache?ssl_ca_certs=/etc/ca.pem", "unix://", "unix:///run/redis.sock?db=HUSH", "unix://HUSH@",
    "redis+cluster://", "redis+cluster://:HUSH@cache", "redis+cluster://:HUSH@a:1,", "redis+cluster://:HUSH@a:1,b",
    "redis+cluster://:HUSH@a:1,b:65536", "redis+cluster://:HUSH@a:1/0", "redis+cluster://:HUSH@a:1?db=0",
    "redis+cluster://:HUSH/HUSH@a:1", "redis+cluster://:HUSH@a:1?ssl_cert_reqs=none", "redis+cluster://:HUSH@a:x",
    "rediss+cluster://:HUSH@a:1?colour=red", "redis+cluster:HUSH@a:1", "redis+cluster://:HUSH@[::1:1,b:2",
    "cluster://:HUSH@a:1", "redis+cluster://:HUSH@a:1#",
]  # fmt: skip

GOOD_REDIS = [
    "redis://cache", "redis://cache/", "redis://cache:6379/3", "redis://[::1]:6379", "rediss://u:p%2Fw@cache:6380/0",
    "redis://:p@w@cache", "redis://cache/1?socket_timeout=2.5&health_check_interval=10", "unix:///run/redis.sock?db=2",
    f"rediss://cache?ssl_ca_certs={CA}&ssl_cert_reqs=required&ssl_check_hostname=True", "unix://:pw@/run/r.sock",
]  # fmt: skip

WRONG = [
    *[("HEADRACE_REDIS", value) for value in WRONG_REDIS],
    *[(name, value) for name in ("HEADRACE_KAFKA", "HEADRACE_CASSANDRA")
      for value in ("", "localhost", "localhost:", ":9092", "localhost:http", "localhost:-1", "localhost:65536",
                    "localhost:²")],
    *[(name, value) for name in ("HEADRACE_PARTITIONS", "HEADRACE_MAX_AHEAD_MS")
      for value in ("", "0", "-1", "many", "1.5")],
    *[("HEADRACE_REPLICATION", value) for value in ("", "0", "-2", "32768", "many", "1.5")],
    *[(name, value) for name in GOOD if name.endswith("_SECONDS") for value in ("", "0", "-1", "nan", "inf", "soon")],
    *[("HEADRACE_DEPLOYMENT", value) for value in ("V2", "2", "v.2", "v_2", "v2\n", "-v", "v" * 33)],
    *[("HEADRACE_INSTANCE", value) for value in ("a b", "a/b", "ä", "w" * 64)],
    *[("HEADRACE_PUBLISH", value) for value in ("", "true", "1", "Yes")],
    *[("HEADRACE_METRICS_HOST", value) for value in ("", "a b", "host..name", ".", "a" * 64, "host:9400", "[::1]")],
    *[("HEADRACE_METRICS_PORT", value) for value in ("", "http", "1.5", "-1", "65536")],
    *[("HEADRACE_FEEDBACK_TOKEN", value) for value in ("", "short", KEY[1:])],
    *[("HEADRACE_MODEL_KEY", value) for value in ("", "short", KEY[1:])],
]  # fmt: skip


def test_every_variable_is_tried_here():
    """A setting that is added is added to these tests."""
    assert variables(Settings) == {*GOOD, *KAFKA, *CLIENT, *CASSANDRA}


def test_nothing_set_means_the_defaults():
    """The defaults point at servers on this machine; other variables are none of its business."""
    assert Settings.read({}) == Settings() == Settings.read({"PATH": "/bin", "HEADRACE": "1"})
    assert all(str(server).startswith("127.0.0.1:") for server in (Settings().kafka, Settings().cassandra))


@pytest.mark.parametrize("variable", GOOD)
def test_a_variable_sets_its_field_alone(variable):
    """Each variable is read into its own field, as its own type, and touches no other."""
    field, text, value = GOOD[variable]
    settings = Settings.read({variable: text})
    assert getattr(settings, field) == value
    assert type(getattr(settings, field)) is type(value)
    others = [spec.name for spec in fields(Settings) if spec.name != field]
    assert [getattr(settings, name) for name in others] == [getattr(Settings(), name) for name in others]


@pytest.mark.parametrize(("variable", "text"), WRONG)
def test_a_wrong_value_names_its_variable(variable, text):
    """A wrong setting is one line that begins with the variable's name."""
    with pytest.raises(SettingsError) as caught:
        Settings.read({**{name: good for name, (_, good, _) in GOOD.items()}, variable: text})
    assert str(caught.value).startswith(f"{variable}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("variable", "environment"), MISFITS)
def test_what_does_not_fit_together_names_a_variable(variable, environment):
    """A user without password, a file that is not there, a password in clear: refused in a line, without the secret."""
    with pytest.raises(SettingsError) as caught:
        Settings.read(environment)
    assert str(caught.value).startswith(variable)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value).lower()


def test_credentials_are_read_and_never_shown():
    """What identifies a process is in its settings, but in no print of them, nor in what names the servers."""
    settings = Settings.read({**KAFKA, **CASSANDRA, "HEADRACE_KAFKA": "one:1, two:2"})
    assert (settings.kafka.security, settings.kafka.user, settings.kafka.password) == ("sasl_tls", "worker", "HUSH")
    assert (settings.cassandra.user, settings.cassandra.password) == ("worker", "HUSH")
    assert "HUSH" not in f"{settings} {settings!r} {settings.kafka} {settings.cassandra!r} {settings.kafka!r}"
    assert str(settings.kafka) == "one:1,two:2"


def test_nothing_is_secured_unless_asked_for():
    """The local default is plaintext; a variable that is empty counts as not set, as compose files have it."""
    empty = dict.fromkeys([*KAFKA, *CASSANDRA, *CLIENT], "") | {"HEADRACE_KAFKA_SECURITY": "plaintext"}
    settings = Settings.read(empty)
    assert settings == Settings()
    assert (settings.kafka.tls(), settings.cassandra.tls()) == (None, None)


def test_a_process_knows_whether_it_speaks_tls():
    """Its event loop is chosen by that."""
    assert not Settings().tls
    assert Settings.read(KAFKA).tls
    assert Settings.read({"HEADRACE_KAFKA_SECURITY": "tls"}).tls
    assert Settings.read({"HEADRACE_REDIS": "rediss+cluster://a:1,b:2"}).tls
    assert not Settings.read(CASSANDRA).tls


@pytest.mark.parametrize("security", ["tls", "sasl_tls"])
def test_a_server_is_verified_by_its_name_and_its_authority(security):
    """Encryption without knowing to whom is none."""
    kafka = Settings.read({**(KAFKA if security == "sasl_tls" else {}), "HEADRACE_KAFKA_SECURITY": security}).kafka
    for context in kafka.tls(), Settings.read(CASSANDRA).cassandra.tls():
        assert context is not None
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


@pytest.mark.parametrize("url", WRONG_REDIS)
def test_a_refused_redis_url_is_not_shown(url):
    """Wherever a password is taken for another part of the URL, no piece of it ends in a log."""
    with pytest.raises(SettingsError) as caught:
        Settings.read({"HEADRACE_REDIS": url})
    assert "hush" not in str(caught.value).lower()
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", GOOD_REDIS)
def test_a_redis_url_that_passes_is_one_for_redis(url):
    """What passes the door makes a client, and none of its options is unknown to a connection."""
    assert Settings.read({"HEADRACE_REDIS": url}).redis == url
    pool = ConnectionPool.from_url(url)
    assert pool.make_connection()


@pytest.mark.parametrize(
    "url", ["redis+cluster://a:7000", "rediss+cluster://u:p%2Fw@a:7000,b:7001,[::1]:7002/?ssl_cert_reqs=none"]
)
def test_a_cluster_is_some_of_its_nodes(url):
    """A cluster's URL names nodes with their ports, of which each gets what is said of all."""
    assert Settings.read({"HEADRACE_REDIS": url}).redis == url
    cluster = nodes(url)
    assert cluster.address == urlsplit(url).netloc.rpartition("@")[2]
    for node in cluster._nodes.values():
        connection = node.redis.connection_pool.make_connection()
        assert f"{connection.host}:{connection.port}" == node.address.translate({ord("["): None, ord("]"): None})
        assert (connection.password, hasattr(connection, "ssl_context")) == (
            ("p/w", True) if "@" in url else (None, False)
        )


@pytest.mark.parametrize(("option", "value"), [("socket_timeout", "0.5"), *[
    (name, {"True|False": "False", "none|optional|required": "none"}.get(pattern, CA if "ca_certs" in name else "1"))
    for name, pattern in REDIS_OPTIONS.items()
]])  # fmt: skip
def test_every_option_is_one_of_redis(option, value):
    """The options at the door are options of the client."""
    url = f"rediss://cache/0?{option}={value}"
    assert Settings.read({"HEADRACE_REDIS": url}).redis == url
    assert ConnectionPool.from_url(url).make_connection()


def test_settings_are_frozen():
    """They are read once; nobody changes them on the way."""
    with pytest.raises(FrozenInstanceError):
        Settings().kafka = "elsewhere:1"


def test_a_missing_model_key_is_named_when_it_is_needed():
    """Who signs or verifies must have a key; who does not, need not."""
    with pytest.raises(SettingsError, match="HEADRACE_MODEL_KEY"):
        Settings.read({}).signing_key()
    assert Settings.read({"HEADRACE_MODEL_KEY": KEY}).signing_key() == KEY.encode()


def test_a_refused_model_key_is_not_shown():
    """An error may end in a log, so it never repeats a key."""
    secret = "Zq7-not-so-long"
    with pytest.raises(SettingsError) as caught:
        Settings.read({"HEADRACE_MODEL_KEY": secret})
    assert secret not in str(caught.value)


def test_settings_do_not_show_the_model_key():
    """Nor does a printed settings object."""
    assert KEY not in repr(Settings.read({"HEADRACE_MODEL_KEY": KEY}))
