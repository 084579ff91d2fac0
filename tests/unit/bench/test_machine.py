"""What a host takes from the machine is noticed, by the second."""

from dataclasses import astuple, dataclass, fields

import numpy as np
import pytest

from tests.bench.machine import Watch


@dataclass
class Times:
    """As psutil has them: seconds of a processor, spent until now."""

    user: float = 0.0
    idle: float = 0.0
    iowait: float = 0.0
    steal: float = 0.0
    guest: float = 0.0

    @property
    def _fields(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self))


class Machine:
    """A clock, and times that go on with it."""

    def __init__(self) -> None:
        self.now, self.spent = 100.0, Times()

    def clock(self) -> float:
        return self.now

    def times(self) -> Times:
        return Times(*astuple(self.spent))

    def pass_second(self, **spent: float) -> None:
        self.now += 1.0
        for name, seconds in spent.items():
            setattr(self.spent, name, getattr(self.spent, name) + seconds)


def watched(steal: list[float]) -> Watch:
    """Return a watch that looked after each second, in each of which so much was stolen."""
    machine = Machine()
    watch = Watch(machine.times, machine.clock)
    for seconds in steal:
        machine.pass_second(user=1.5, iowait=0.1, idle=0.4 - seconds, steal=seconds)
        watch.look()
    return watch


def test_moments_in_or_after_a_second_with_theft_are_disturbed() -> None:
    watch = watched([0.0, 0.3, 0.0, 0.01, 0.0])
    moments = np.array([99.9, 100.5, 101.5, 102.5, 103.5, 104.0, 104.99, 105.5])
    assert watch.undisturbed(moments).tolist() == [False, True, False, False, True, True, True, False]


def test_a_look_within_the_second_is_none() -> None:
    machine = Machine()
    watch = Watch(machine.times, machine.clock)
    machine.now += 0.9
    watch.look()
    assert not watch.undisturbed(np.array([100.5])).any()


def test_shares_are_of_all_that_passed() -> None:
    busy, stolen = watched([0.2, 0.0]).shares()
    assert busy == pytest.approx((3.0 + 0.2) / 4)
    assert stolen == pytest.approx(0.2 / 4)
