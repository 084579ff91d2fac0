"""How the text of a setting becomes its value; a wrong one is a ValueError that says what it must be."""

import ssl
from collections.abc import Callable
from re import ASCII, fullmatch
from typing import Any

TEN_YEARS = 315_360_000  # seconds


def positive(kind: Callable[[str], Any], most: int = TEN_YEARS) -> Callable[[str], Any]:
    """Return the parser of numbers of that kind above 0 and up to `most`."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value <= most:
            raise ValueError(f"must be more than 0 and at most {most}")
        return value

    return parse


def copies(text: str) -> int:
    """How many copies of a topic, -1 for as many as the brokers are set to."""
    number = int(text)
    if number != -1 and not 0 < number <= 32_767:
        raise ValueError("must be more than 0 and at most 32767, or -1 for what the brokers are set to")
    return number


def port(text: str) -> int:
    """A port, 0 for a free one."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError("must be a port, 0 to 65535")
    return number


def host(text: str) -> str:
    """A host or address to listen at."""
    if not fullmatch(r"[\w-]{1,63}(\.[\w-]{1,63})*|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*", text, ASCII):
        raise ValueError("must be the host or address to listen at, without a port")
    return text


def address(text: str) -> str:
    """HOST:PORT."""
    where, _, number = text.rpartition(":")
    if not where or not number.isdigit():
        raise ValueError("must be HOST:PORT")
    port(number)
    try:
        where.encode("idna")  # as whoever connects does
    except UnicodeError:
        raise ValueError(f"{where} is no host's name") from None
    return text


def addresses(text: str) -> str:
    """Several of these, with commas between them."""
    return ",".join(address(part.strip()) for part in text.split(","))


def name(text: str) -> str:
    """A keyspace's name."""
    if not (text.isascii() and text.replace("_", "").isalnum() and text[0].isalpha() and len(text) <= 48):
        raise ValueError("must be letters, digits and underscores, 48 at most, a letter first")
    return text


def deployment(text: str) -> str:
    """A deployment's name, empty for the unnamed one."""
    if not fullmatch(r"([a-z][a-z0-9-]{0,31})?", text):
        raise ValueError("must be small letters, digits and hyphens, 32 at most, a letter first")
    return text


def instance(text: str) -> str:
    """A static member's name, empty for none."""
    if not fullmatch(r"[A-Za-z0-9._-]{0,63}", text, ASCII):
        raise ValueError("must be letters, digits, dots, hyphens and underscores, 63 at most")
    return text


def yes_or_no(text: str) -> bool:
    """A switch."""
    if text not in ("yes", "no"):
        raise ValueError("must be yes or no")
    return text == "yes"


def key(text: str) -> bytes:
    """A key that signs, or a token."""
    if len(text) < 32:
        raise ValueError("must have at least 32 characters")
    return text.encode()


def one_of(*words: str) -> Callable[[str], str]:
    """Return the parser of a choice."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return text

    return parse


def line(text: str) -> str:
    """A user's name or password, empty for none."""
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    return text


def authority(text: str) -> str:
    """A file with the certificates of those who may vouch for a server (PEM), empty for none."""
    if text:
        tls_context(text)
    return text


def tls_context(ca: str = "") -> ssl.SSLContext:
    """Return how a server is reached that a certificate in the file `ca` vouches for; one of the system's without it.

    Raises ValueError where there is no such file, or no certificate in it.
    """
    try:
        return ssl.create_default_context(cafile=ca or None)
    except ssl.SSLError:
        raise ValueError(f"there is no certificate in {ca} (PEM)") from None
    except OSError as error:
        raise ValueError(f"{ca} cannot be read: {error.strerror}") from None
