"""Settings: every variable is read, and a wrong one fails with its name."""

from dataclasses import FrozenInstanceError, fields

import pytest

from streams.settings import Settings, SettingsError

KEY = "0123456789abcdef0123456789abcdef"

GOOD = {
    "HEADRACE_KAFKA": ("kafka", "broker.internal:19092", "broker.internal:19092"),
    "HEADRACE_REDIS": ("redis", "redis://cache:6380/1", "redis://cache:6380/1"),
    "HEADRACE_CASSANDRA": ("cassandra", "[::1]:9043", "[::1]:9043"),
    "HEADRACE_KEYSPACE": ("keyspace", "headrace_test", "headrace_test"),
    "HEADRACE_MODEL_KEY": ("model_key", KEY, KEY.encode()),
    "HEADRACE_PARTITIONS": ("partitions", "12", 12),
    "HEADRACE_CHECKPOINT_SECONDS": ("checkpoint_seconds", "0.25", 0.25),
    "HEADRACE_SNAPSHOT_SECONDS": ("snapshot_seconds", "5", 5.0),
    "HEADRACE_SESSION_SECONDS": ("session_seconds", "6", 6.0),
    "HEADRACE_LABEL_WAIT_SECONDS": ("label_wait_seconds", "1.5", 1.5),
    "HEADRACE_WATERMARK_WAIT_SECONDS": ("watermark_wait_seconds", "90", 90.0),
    "HEADRACE_MAX_AHEAD_MS": ("max_ahead_ms", "1000", 1000),
    "HEADRACE_METRICS_PORT": ("metrics_port", "9400", 9400),
}

WRONG = [
    *[(name, value) for name in ("HEADRACE_KAFKA", "HEADRACE_CASSANDRA")
      for value in ("", "localhost", "localhost:", ":9092", "localhost:http", "localhost:-1", "localhost:65536",
                    "localhost:²")],
    *[(name, value) for name in ("HEADRACE_PARTITIONS", "HEADRACE_MAX_AHEAD_MS")
      for value in ("", "0", "-1", "many", "1.5")],
    *[(name, value) for name in GOOD if name.endswith("_SECONDS") for value in ("", "0", "-1", "nan", "inf", "soon")],
    *[("HEADRACE_METRICS_PORT", value) for value in ("", "http", "1.5", "-1", "65536")],
    *[("HEADRACE_MODEL_KEY", value) for value in ("", "short", KEY[1:])],
]  # fmt: skip


def test_every_variable_is_tried_here():
    """A setting that is added is added to these tests."""
    assert {spec.metadata["variable"] for spec in fields(Settings)} == set(GOOD)


def test_nothing_set_means_the_defaults():
    """The defaults point at servers on this machine; other variables are none of its business."""
    assert Settings.read({}) == Settings() == Settings.read({"PATH": "/bin", "HEADRACE": "1"})
    assert all(address.startswith("127.0.0.1:") for address in (Settings().kafka, Settings().cassandra))


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
