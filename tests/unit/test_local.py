"""In the tests a server may be away for a moment; what it then says counts."""

from collections.abc import Callable

import pytest
from kafka.errors import LeaderNotAvailableError

from streams.stores.history import StoreUnreachable
from tests.local import answered, within


def server(*answers: bool | Exception) -> Callable[[], bool]:
    """What answers so in turn."""
    left = iter(answers)

    def ask() -> bool:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def test_a_server_that_comes_back_is_heard() -> None:
    """Each attempt that fails is followed by another, and so is a false answer in a wait."""
    assert answered(5, server(StoreUnreachable(), LeaderNotAvailableError(), False)) is False
    assert within(5, server(StoreUnreachable(), False, LeaderNotAvailableError(), True))


def test_a_server_that_stays_away_is_an_error() -> None:
    """At the end the test fails with what the server's client said."""
    for wait in (answered, within):
        with pytest.raises(StoreUnreachable, match="away"):
            wait(0.1, server(*[StoreUnreachable("away")] * 100))


def test_a_wait_ends() -> None:
    """What does not become true is false; another error is nothing to wait for."""
    assert not within(0.1, lambda: False)
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: bool(1 // 0))
