"""Where Kafka and Cassandra are, as whom they are asked, and how they prove who they are."""

import ssl
from dataclasses import dataclass

from streams.settings.parsing import address, addresses, authority, line, one_of, tls_context
from streams.settings.reading import SettingsError, setting

PLAINTEXT, TLS, SASL_TLS = "plaintext", "tls", "sasl_tls"


@dataclass(frozen=True)
class KafkaAccess:
    """Kafka: one or more brokers, with commas between them; printed, it is their addresses.

    With `tls` a broker shows a certificate that `ca` vouches for (the system's authorities without it), and the
    client may show one too (`certificate` and `key`, PEM files); with `sasl_tls` there are a user and password as
    well (SCRAM-SHA-512). A wrong combination is a SettingsError.
    """

    addresses: str = setting("HEADRACE_KAFKA", addresses, "127.0.0.1:9092")
    security: str = setting("HEADRACE_KAFKA_SECURITY", one_of(PLAINTEXT, TLS, SASL_TLS), PLAINTEXT)
    user: str = setting("HEADRACE_KAFKA_USER", line, "")
    password: str = setting("HEADRACE_KAFKA_PASSWORD", line, "", secret=True)
    ca: str = setting("HEADRACE_KAFKA_CA", authority, "")
    certificate: str = setting("HEADRACE_KAFKA_CERTIFICATE", line, "")
    key: str = setting("HEADRACE_KAFKA_KEY", line, "")

    def __post_init__(self) -> None:
        _pair("HEADRACE_KAFKA_USER", self.user, "HEADRACE_KAFKA_PASSWORD", self.password)
        _pair("HEADRACE_KAFKA_CERTIFICATE", self.certificate, "HEADRACE_KAFKA_KEY", self.key)
        if self.security == SASL_TLS and not self.user:
            raise SettingsError("HEADRACE_KAFKA_USER: is not set, and HEADRACE_KAFKA_SECURITY is sasl_tls")
        if self.security != SASL_TLS and self.user:
            raise SettingsError("HEADRACE_KAFKA_SECURITY: must be sasl_tls where there is a user")
        if self.security == PLAINTEXT and (self.ca or self.certificate):
            raise SettingsError("HEADRACE_KAFKA_SECURITY: must be tls or sasl_tls where there are certificates")
        if self.certificate:
            self.tls()

    def __str__(self) -> str:
        return self.addresses

    def tls(self) -> ssl.SSLContext | None:
        """Return how a connection is secured, None for not at all; raises SettingsError."""
        if self.security == PLAINTEXT:
            return None
        context = tls_context(self.ca)
        if self.certificate:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except (ssl.SSLError, OSError) as error:
                why = error.strerror or error
                raise SettingsError(f"HEADRACE_KAFKA_CERTIFICATE, HEADRACE_KAFKA_KEY: {why}") from None
        return context


@dataclass(frozen=True)
class CassandraAccess:
    """Cassandra: the address of a node; printed, it is that.

    With `ca` each node shows a certificate that it vouches for, and a user and password may be given. A wrong
    combination is a SettingsError.
    """

    address: str = setting("HEADRACE_CASSANDRA", address, "127.0.0.1:9042")
    user: str = setting("HEADRACE_CASSANDRA_USER", line, "")
    password: str = setting("HEADRACE_CASSANDRA_PASSWORD", line, "", secret=True)
    ca: str = setting("HEADRACE_CASSANDRA_CA", authority, "")

    def __post_init__(self) -> None:
        _pair("HEADRACE_CASSANDRA_USER", self.user, "HEADRACE_CASSANDRA_PASSWORD", self.password)
        if self.user and not self.ca:
            raise SettingsError("HEADRACE_CASSANDRA_CA: is not set, and a password is not sent in clear")

    def __str__(self) -> str:
        return self.address

    def tls(self) -> ssl.SSLContext | None:
        """Return how a connection is secured, None for not at all."""
        return tls_context(self.ca) if self.ca else None


Kafka = KafkaAccess | str
Cassandra = CassandraAccess | str
"""Addresses alone are reached in plaintext."""


def _pair(first: str, one: str, second: str, other: str) -> None:
    if one and not other:
        raise SettingsError(f"{second}: is not set, but {first} is")
    if other and not one:
        raise SettingsError(f"{first}: is not set, but {second} is")
