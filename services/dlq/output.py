"""Letters as text for people and as JSON for programs; pure. What others wrote never reaches a terminal raw."""

from typing import Any

from services.dlq.letter import Letter
from streams.console import moment, printable

HEADER = f"{'OFFSET':>8}  {'TIME (UTC)':<19}  {'STATE':<8}  {'TRY':>3}  {'REASON':<13}  {'SOURCE':<30}  MESSAGE"
MESSAGE_WIDTH = 80


def line(letter: Letter, state: str, why: str) -> str:
    """Return a letter as one line of the table under HEADER."""
    message = printable(f"{letter.message} ({why})" if why else letter.message)
    short = message if len(message) <= MESSAGE_WIDTH else f"{message[: MESSAGE_WIDTH - 1]}…"
    source, reason = printable(str(letter.source or "-")), printable(letter.reason)
    return (
        f"{letter.offset:>8}  {moment(letter.time):<19}  {state:<8}  {letter.attempt:>3}  "
        f"{reason:<13}  {source:<30}  {short}"
    )


def page(letter: Letter, state: str, why: str) -> str:
    """Return all of a letter, a line a part."""
    parts = [
        ("offset", str(letter.offset)),
        ("time", f"{moment(letter.time)} UTC"),
        ("state", f"{state} ({why})" if why else state),
        ("attempt", str(letter.attempt)),
        ("reason", letter.reason),
        ("message", letter.message),
        ("source", str(letter.source or "-")),
        *((f"header {name}", _text(value)) for name, value in letter.headers),
        ("key", _text(letter.key)),
        ("value", _text(letter.value)),
    ]
    return "\n".join(f"{printable(name)}: {printable(text)}" for name, text in parts)


def facts(letter: Letter, state: str, why: str) -> dict[str, Any]:
    """Return what JSON says of a letter in a list."""
    return {
        "offset": letter.offset,
        "time": letter.time,
        "state": state,
        "why": why or None,
        "attempt": letter.attempt,
        "reason": letter.reason,
        "message": letter.message,
        "source": letter.source and letter.source._asdict(),
        "value_bytes": None if letter.value is None else len(letter.value),
    }


def content(letter: Letter) -> dict[str, Any]:
    """Return what JSON adds where one letter is shown: `text`, or `hex` of what is no UTF-8, null of nulls."""
    headers = [{"name": name, "value": _coded(value)} for name, value in letter.headers]
    return {"key": _coded(letter.key), "value": _coded(letter.value), "headers": headers}


def _text(data: bytes | None) -> str:
    if data is None:
        return "null"
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"


def _coded(data: bytes | None) -> dict[str, str] | None:
    if data is None:
        return None
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"hex": data.hex()}
