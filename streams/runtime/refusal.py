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
    """Say which settings the first broker that answers does not accept, None if it is not about them; blocks.

    The answer begins with the variables' names. A broker that is away, or hangs, says nothing of the settings.
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
            if (why := await _ask(address, host, int(port), options)) is not None:
                return why or None
    return None


async def _ask(address: str, host: str, port: int, options: dict[str, Any]) -> str | None:
    """Do as a client would, to the end of the authentication; the answer is empty if it is let in, None if unknown."""
    where, name, secured = f"Kafka at {address}", options.get("sasl_plain_username"), "ssl_context" in options
    why: str | None = ""
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
        why, speaks = None, await _speaks_tls(host, port)
        if speaks is not None and speaks is not secured:
            why = f"HEADRACE_KAFKA_SECURITY: {where} speaks {'TLS alone' if speaks else 'no TLS'}"
    return why


async def _asks_who(conn: AIOKafkaConnection) -> bool:
    answer = await conn.send(SaslHandShakeRequest(MECHANISM))
    return bool(answer.error_code != IllegalSaslStateError.errno)


async def _speaks_tls(host: str, port: int) -> bool | None:
    """Say whether a port speaks TLS, None where it hangs or has gone."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port, ssl=anyone), LOOK_SECONDS)
    except (TimeoutError, ConnectionRefusedError):
        return None
    except OSError:
        return False
    writer.close()
    return True
