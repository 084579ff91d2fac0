"""A claim: what an owner finds, and that the former one neither writes nor reads after it."""

import pytest

from streams.stores.state import Checkpoint, Fenced, StateStore
from tests.contract.state_store.shared import IDS, Run


def test_a_first_owner_finds_no_checkpoint(run: Run) -> None:
    """A partition that nobody has kept has no checkpoint and no states."""

    async def scenario(store: StateStore, partition: str) -> None:
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert claim.refused is None
        assert await store.read(partition, IDS) == [None] * len(IDS)
        assert await store.load(partition, claim.epoch, IDS) == [None] * len(IDS)

    run(scenario)


def test_claims_raise_the_epoch(run: Run) -> None:
    """Every claim has a higher epoch than all before it; partitions do not share epochs."""

    async def scenario(store: StateStore, partition: str) -> None:
        epochs = [(await store.claim(partition)).epoch for _ in range(3)]
        assert epochs == sorted(set(epochs))
        assert (await store.claim(partition + "0")).epoch == epochs[0]

    run(scenario)


def test_a_former_owner_writes_nothing(run: Run) -> None:
    """After another's claim a save is refused whole: neither the offset nor a single state of it is kept."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        await store.save(partition, former, Checkpoint(1, b"m"), [(b"a", b"1")])
        owner = (await store.claim(partition)).epoch
        with pytest.raises(Fenced, match=rf"{partition}: epoch {former} is over, it is {owner} now"):
            await store.save(partition, former, Checkpoint(2, b"n"), [(b"a", b"2"), (b"b", b"2")])
        assert await store.read(partition, [b"a", b"b"]) == [b"1", None]
        await store.save(partition, owner, Checkpoint(3, b"o"), [(b"a", b"3")])
        assert (await store.claim(partition)).checkpoint == Checkpoint(3, b"o")

    run(scenario)


def test_who_never_claimed_writes_nothing(run: Run) -> None:
    """A store that has lost the epoch (all its data) refuses the owner, who must claim again."""

    async def scenario(store: StateStore, partition: str) -> None:
        with pytest.raises(Fenced):
            await store.save(partition, 1, Checkpoint(1, b""), [(b"a", b"1")])
        assert (await store.claim(partition)).checkpoint is None

    run(scenario)


def test_a_former_owner_reads_nothing(run: Run) -> None:
    """What another owner keeps is of another moment than what this one folds: it is not loaded into it."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        owner = (await store.claim(partition)).epoch
        await store.save(partition, owner, Checkpoint(1, b""), [(b"a", b"1")])
        with pytest.raises(Fenced, match=rf"{partition}: epoch {former} is over, it is {owner} now"):
            await store.load(partition, former, [b"a"])
        assert await store.load(partition, owner, [b"a"]) == [b"1"]

    run(scenario)
