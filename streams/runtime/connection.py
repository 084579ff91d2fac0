"""How every Kafka client is opened: where the brokers are, and as whom. aiokafka and kafka-python share the words."""

from typing import Any

from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from streams.settings import Kafka, KafkaAccess

MECHANISM = "SCRAM-SHA-512"


def connection(kafka: Kafka) -> dict[str, Any]:
    """Return what any client of aiokafka or kafka-python is opened with, as keyword arguments.

    >>> connection("one:9092,two:9092")
    {'bootstrap_servers': ['one:9092', 'two:9092'], 'security_protocol': 'PLAINTEXT'}
    """
    access = _access(kafka)
    options: dict[str, Any] = {"bootstrap_servers": access.addresses.split(","), "security_protocol": "PLAINTEXT"}
    if (tls := access.tls()) is None:
        return options
    options |= {"security_protocol": "SSL", "ssl_context": tls}
    if not access.user:
        return options
    return options | {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": MECHANISM,
        "sasl_plain_username": access.user,
        "sasl_plain_password": access.password,
    }


def credentials(kafka: Kafka) -> CredentialsT | None:
    """Return the same for a Faust app; None in plaintext."""
    access = _access(kafka)
    if (tls := access.tls()) is None:
        return None
    if not access.user:
        return SSLCredentials(tls)
    return SASLCredentials(username=access.user, password=access.password, ssl_context=tls, mechanism=MECHANISM)


def _access(kafka: Kafka) -> KafkaAccess:
    return kafka if isinstance(kafka, KafkaAccess) else KafkaAccess(kafka)
