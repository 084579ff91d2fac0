"""The servers of the integration tests: started once a session, each when the first test needs it, on either engine.

A test that uses one of these fixtures is an integration test and is marked as one. The servers are shared, so tests
use topics, keys and use cases of their own.
"""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.engines import Engine, Server, images
from tests.engines.local import Local
from tests.engines.summary import told

settings.register_profile("headrace", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("headrace")

pytest.register_assert_rewrite("tests.unit.streams.agents")  # helpers there compare, and say what differs

SERVERS = {"engine", "containers", "kafka_server", "mortal_kafka", "valkey_server", "cassandra_server"}
ON_CONTAINERS = "containers"
ELSEWHERE = {"local": "starts local servers of its own", ON_CONTAINERS: "`make test-containers` runs it"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--engine`: where the integration tests have their servers."""
    parser.addoption("--engine", choices=["local", ON_CONTAINERS], default="local", help="where the servers run")


def pytest_configure(config: pytest.Config) -> None:
    """Containers that were asked for and cannot be had are an error, never a skip; Ctrl-C ends what is tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as where a shell has started the tests in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--engine") == ON_CONTAINERS and (why := images.obstacle()):
        raise pytest.UsageError(f"--engine containers: {why}")


@pytest.fixture(scope="session")
def engine(pytestconfig: pytest.Config) -> Engine:
    """What starts servers for this session."""
    if pytestconfig.getoption("--engine") == ON_CONTAINERS:
        return containers_engine()
    return Local()


@pytest.fixture(scope="session")
def containers() -> Engine:
    """Containers, whatever the rest of the session has; a test that uses this is skipped where there are none."""
    if why := images.obstacle():
        pytest.skip(why)
    return containers_engine()


def containers_engine() -> Engine:
    from tests.engines.containers import Containers  # noqa: PLC0415 - most sessions need no Docker client

    return Containers()


@pytest.fixture(scope="session")
def kafka_server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running Kafka, `host:port`."""
    with engine.kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server.address


@pytest.fixture(scope="session")
def mortal_kafka(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another Kafka, for the tests that kill it; each leaves it as it found it, running."""
    with engine.kafka(tmp_path_factory.mktemp("mortal-kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running Valkey, `redis://host:port/0`."""
    with engine.valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def cassandra_server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running Cassandra, `host:port`."""
    with engine.cassandra(tmp_path_factory.mktemp("cassandra")) as server:
        yield server.address


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what uses a server, so that `-m "not integration"` starts none, and leave out what is for the other engine.

    On containers a test without servers is deselected; one whose servers can only be local is skipped, and says why.
    """
    chosen = config.getoption("--engine")
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & SERVERS:
            item.add_marker(pytest.mark.integration)
        if ON_CONTAINERS in fixtures:
            item.add_marker(pytest.mark.containers)
        on = engine_of(item, chosen)
        item.user_properties.append(("engine", on))
        if on and on != chosen and ON_CONTAINERS not in fixtures:
            mark = item.get_closest_marker(on)
            item.add_marker(pytest.mark.skip(reason=mark.args[0] if mark and mark.args else ELSEWHERE[on]))
    if chosen == ON_CONTAINERS:
        unserved = [item for item in items if not engine_of(item, chosen)]
        config.hook.pytest_deselected(items=unserved)
        items[:] = [item for item in items if item not in unserved]


def engine_of(item: pytest.Item, chosen: str) -> str:
    """Where a test's servers run, empty if it has none."""
    for engine in (ON_CONTAINERS, "local"):
        if item.get_closest_marker(engine):
            return engine
    return chosen if item.get_closest_marker("integration") else ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say for each engine what ran on it and what did not."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    terminalreporter.section("engines")
    for line in told(reports, config.getoption("--engine")):
        terminalreporter.line(line)
