"""How Kafka's clients are opened, and what a look at the brokers finds where one is not let in."""

import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import certifi
import pytest
from aiokafka import AIOKafkaClient
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from kafka import KafkaAdminClient

from infra.local.certificates import Authority
from infra.local.ports import HOST
from streams.runtime import refusal as refusing
from streams.runtime.connection import connection, credentials
from streams.runtime.refusal import refusal
from streams.settings import KafkaAccess

CA = certifi.where()
REFUSED = "HEADRACE_KAFKA_CA: the certificate of Kafka at {} is refused: "
TLS = KafkaAccess("a:1,b:2", "tls", ca=CA)
SCRAM = KafkaAccess("a:1,b:2", "sasl_tls", "worker", "secret", CA)


@pytest.mark.parametrize(("access", "protocol"), [("a:1,b:2", "PLAINTEXT"), (TLS, "SSL"), (SCRAM, "SASL_SSL")], ids=str)
def test_every_client_takes_the_same_options(access: Any, protocol: str) -> None:
    """One vocabulary for aiokafka, kafka-python and Faust, which turns its own words into aiokafka's."""
    options = connection(access)
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert options["security_protocol"] == protocol
    assert options.keys() <= set(AIOKafkaClient.__init__.__kwdefaults__)
    assert options.keys() <= set(KafkaAdminClient.DEFAULT_CONFIG)
    faust = credentials_to_aiokafka_auth(credentials(access))
    assert {**faust, "ssl_context": None} == {"ssl_context": None} | {
        name: None if name == "ssl_context" else value for name, value in options.items() if name != "bootstrap_servers"
    }


class Broker:
    """A port that accepts; with a certificate it speaks TLS, and then or without one it hangs up, or it hangs."""

    def __init__(self, certificate: Path | None = None, hangs: bool = False) -> None:
        self._tls, self._hangs = None, hangs
        if certificate:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate)
        self._socket = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.settimeout(5)
            try:
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                while connection.recv(100) and self._hangs:
                    pass
            except OSError:
                pass
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def broker(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Broker]:
    """A broker that speaks as the test's parameter says."""
    shown = {
        "plain": None,
        "valid": authority.issue("valid"),
        "expired": authority.issue("expired", timedelta(days=-1)),
    }
    broker = Broker(shown[request.param])
    yield broker
    broker.close()


@pytest.mark.parametrize(
    ("broker", "security", "known", "told"),
    [
        ("valid", "plaintext", False, "HEADRACE_KAFKA_SECURITY: Kafka at {} speaks TLS alone"),
        ("plain", "sasl_tls", True, "HEADRACE_KAFKA_SECURITY: Kafka at {} speaks no TLS"),
        ("expired", "sasl_tls", True, REFUSED + "certificate has expired"),
        ("valid", "tls", False, REFUSED + "self-signed certificate in"),
        ("valid", "sasl_tls", True, None),
        ("plain", "plaintext", False, None),
    ],
    indirect=["broker"],
)  # fmt: skip
def test_a_look_says_which_setting_is_refused(
    broker: Broker, authority: Authority, security: str, known: bool, told: str | None
) -> None:
    """It names the variable; where the settings are not to blame it says nothing."""
    login = ("worker", "secret") if security == "sasl_tls" else ("", "")
    access = KafkaAccess(broker.address, security, *login, ca=str(authority.path) if known else "")
    said = refusal(access)
    if told is None:
        assert said is None
    else:
        assert said is not None
        assert said.startswith(told.format(broker.address))
        assert "secret" not in said


@pytest.mark.parametrize("how", ["away", "hangs"])
def test_a_broker_that_does_not_answer_is_no_setting(
    how: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of it nothing is known; the next broker of the list is asked."""
    monkeypatch.setattr(refusing, "LOOK_SECONDS", 0.3)
    silent, expired = Broker(hangs=True), Broker(authority.issue("expired", timedelta(days=-1)))
    if how == "away":
        silent.close()
    try:
        tls = KafkaAccess(silent.address, "sasl_tls", "worker", "secret", ca=str(authority.path))
        assert refusal(silent.address) is None
        assert refusal(tls) is None
        said = refusal(replace(tls, addresses=f"{silent.address},{expired.address}"))
        assert said
        assert said.startswith(REFUSED.format(expired.address))
    finally:
        expired.close()
        if how == "hangs":
            silent.close()
