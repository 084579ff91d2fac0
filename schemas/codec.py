"""Bytes to structs and back, strictly: what does not fit is a `Poison` that says why."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

MAX_VALUE_BYTES = 64 * 1024
"""Above any sane event; a larger value is refused unread."""

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


class Poison(ValueError):
    """A record that can never be processed; `reason` is a short class for counting, the message says more."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Decoder(Generic[T]):
    """Decode JSON into `type_`, refusing what is missing, mistyped, too large or too far ahead in time.

    `time_field` names the event-time field (epoch ms) that may not lie after the `latest` of a call.

    >>> from schemas.events import Label
    >>> Decoder(Label, "label_time")(b'{"event_id":"a","label_time":5,"label":1}', latest=9).label
    1
    """

    def __init__(self, type_: type[T], time_field: str, max_bytes: int = MAX_VALUE_BYTES) -> None:
        self._decode = msgspec.json.Decoder(type_).decode
        self._time_field = time_field
        self._max_bytes = max_bytes

    def __call__(self, value: bytes | None, latest: int) -> T:
        if value is None:
            raise Poison("null", "the value is null")
        if len(value) > self._max_bytes:
            raise Poison("too_large", f"{len(value)} bytes, more than {self._max_bytes}")
        try:
            message = self._decode(value)
        except msgspec.ValidationError as error:
            raise Poison("invalid", str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Poison("undecodable", str(error)) from None
        time = getattr(message, self._time_field)
        if time > latest:
            raise Poison("future", f"{self._time_field} {time} is after {latest}")
        return message
