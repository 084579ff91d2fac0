"""Why a client does not get through to Kafka: the clients try for ever and tell nobody that they are not let in."""

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.admin import SaslHandShakeRequest

from streams.runtime.connection import MECHANISM, connection
from streams.settings import Kafka

LOOK_SECONDS = 3.0

NOT_LET_IN = (AuthenticationFailedError, SaslAuthenticationFailed)
NO_SCRAM = (UnsupportedSaslMechanismError, IllegalSaslStateError)


def refusal(kafka: Kafka) -> str | None:
    """Say which settings the first broker that can be reached does not accept, None if it is not about them; blocks.

    The answer begins with the variables' names.
    """
    with ThreadPoolExecutor(1) as apart:  # from the loop that may run in this thread
        return apart.submit(asyncio.run, _look(kafka)).result()


async def _look(kafka: Kafka) -> str | None:
    options = connection(kafka)
    for address in options.pop("bootstrap_servers"):
        host, _, port = address.rpartition(":")
        with suppress(OSError, TimeoutError):
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), LOOK_SECONDS)
            writer.close()
            return await _ask(address, host, int(port), options)
    return None


async def _ask(address: str, host: str, port: int, options: dict[str, Any]) -> str | None:
    """Do as a client would, to the end of the authentication."""
    where, name, secured = f"Kafka at {address}", options.get("sasl_plain_username"), "ssl_context" in options
    why = None
    try:
        conn = await create_conn(host, port, request_timeout_ms=int(LOOK_SECONDS * 1000), **options)
        if secured and not name and await _asks_who(conn):
            why = f"HEADRACE_KAFKA_SECURITY: {where} wants to know the user, so it must be sasl_tls"
        conn.close()
    except ssl.SSLCertVerificationError as error:
        why = f"HEADRACE_KAFKA_CA: the certificate of {where} is refused: {error.verify_message}"
    except NOT_LET_IN:
        why = f"HEADRACE_KAFKA_USER, HEADRACE_KAFKA_PASSWORD: {where} does not let {name} in"
    except NO_SCRAM:
        why = f"HEADRACE_KAFKA_SECURITY: {where} has no {MECHANISM}"
    except (KafkaError, OSError, TimeoutError):
        if (speaks := await _speaks_tls(host, port)) is not secured:
            why = f"HEADRACE_KAFKA_SECURITY: {where} speaks {'TLS alone' if speaks else 'no TLS'}"
    return why


async def _asks_who(conn: AIOKafkaConnection) -> bool:
    answer = await conn.send(SaslHandShakeRequest(MECHANISM))
    return bool(answer.error_code != IllegalSaslStateError.errno)


async def _speaks_tls(host: str, port: int) -> bool:
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port, ssl=anyone), LOOK_SECONDS)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
