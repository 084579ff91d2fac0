"""Every record is taken once, however often it comes and whichever later ones overtake it."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.features.seen import WINDOW, Seen

steps = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40) | st.integers(0, 3 * WINDOW)), max_size=60)


def twin(taken: list[tuple[int, int]]) -> list[bool]:
    """Which of the records are new: every one is remembered, and what lies too far back counts as seen."""
    seen: set[tuple[int, int]] = set()
    new = []
    for source, offset in taken:
        highest = max((other for of, other in seen if of == source), default=-1)
        new.append((source, offset) not in seen and offset > highest - WINDOW)
        if new[-1]:
            seen.add((source, offset))
    return new


@given(steps, st.integers(0, 60))
def test_it_is_the_set_of_all_records(taken: list[tuple[int, int]], cut: int) -> None:
    """One by one, many at once, or resumed from bytes in between: as if every record were remembered."""
    one, many = Seen(0), Seen(3)
    assert [one.add(*record) for record in taken[:cut]] == twin(taken)[:cut]
    one = Seen.from_bytes(one.to_bytes())
    assert [one.add(*record) for record in taken[cut:]] == twin(taken)[cut:]
    sources, offsets = np.array(taken, np.int64).reshape(-1, 2).T.copy()
    assert many.take(sources, offsets).tolist() == twin(taken)


@given(st.lists(st.integers(0, WINDOW - 1), max_size=30), st.randoms())
def test_the_bytes_say_which_not_when(offsets: list[int], random: Random) -> None:
    """The same offsets in any order leave the same bytes, so that states can be compared as bytes."""
    first, second = Seen(1), Seen(1)
    for offset in offsets:
        first.add(0, offset)
    random.shuffle(offsets)
    for offset in offsets:
        second.add(0, offset)
    assert first.to_bytes() == second.to_bytes()


def test_what_is_known_by_its_highest_alone_is_all_taken() -> None:
    """Marks without windows, as they were kept before, refuse everything up to them and take what follows."""
    seen = Seen.all_up_to(np.array([7, -1]))
    assert [seen.add(0, offset) for offset in (7, 3, 9, 8, 9)] == [False, False, True, True, False]
    assert seen.add(1, 0)


def test_a_copy_goes_its_own_way() -> None:
    """What is taken later is not in a copy made before."""
    seen = Seen(1)
    copied = seen.copy()
    assert seen.add(0, 4)
    assert copied.add(0, 4)


def test_bytes_that_are_no_windows_are_refused() -> None:
    """A cut record is not misread."""
    with pytest.raises(ValueError, match="no windows"):
        Seen.from_bytes(Seen(2).to_bytes()[:-1])
