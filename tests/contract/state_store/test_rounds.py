"""The archive's rounds: what has changed since the last, and what is put back from the archive."""

import pytest

from streams.stores.state import Checkpoint, Fenced, TrackingStore
from tests.contract.state_store.shared import IDS, Run, changed


def test_changes_are_noted_for_the_archive(run: Run) -> None:
    """A round is about what was saved before it, what is saved meanwhile is for the next."""

    async def scenario(store: TrackingStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.begin_round(partition, epoch)
        assert await changed(store, partition, epoch, recent=False) == set()
        await store.save(partition, epoch, Checkpoint(1, b""), [(id_, b"1") for id_ in IDS])
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2")])
        assert await changed(store, partition, epoch, recent=True) == set(IDS)
        await store.begin_round(partition, epoch)
        await store.save(partition, epoch, Checkpoint(3, b""), [(b"a", b"3"), (b"z", b"3")])
        assert await changed(store, partition, epoch, recent=False) == set(IDS)
        assert await changed(store, partition, epoch, recent=True) == {b"a", b"z"}
        await store.end_round(partition, epoch)
        assert await changed(store, partition, epoch, recent=False) == set()
        assert await changed(store, partition, epoch, recent=True) == {b"a", b"z"}

    run(scenario)


def test_a_round_that_was_broken_off_is_part_of_the_next(run: Run) -> None:
    """Also of the next owner's: nothing that changed is missed by the archive."""

    async def scenario(store: TrackingStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        many = [(f"e{i}".encode(), b"1") for i in range(3000)]
        await store.save(partition, epoch, Checkpoint(1, b""), many)
        await store.begin_round(partition, epoch)
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"z", b"2")])
        owner = (await store.claim(partition)).epoch
        for call in (store.begin_round, store.end_round):
            with pytest.raises(Fenced):
                await call(partition, epoch)
        await store.begin_round(partition, owner)
        assert await changed(store, partition, owner, recent=False) == {id_ for id_, _ in many} | {b"z"}
        assert await changed(store, partition, owner, recent=True) == set()
        with pytest.raises(Fenced):  # these are another's: a former owner would delete what they need
            await changed(store, partition, epoch, recent=False)

    run(scenario)


def test_states_that_were_put_count_with_the_next_checkpoint(run: Run) -> None:
    """They come from the archive: no change, and nothing at all if the restore ends before its checkpoint."""

    async def scenario(store: TrackingStore, partition: str) -> None:
        broken_off = (await store.claim(partition)).epoch
        await store.put(partition, broken_off, [(b"a", b"1"), (b"b", b"1")])
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert await store.load(partition, claim.epoch, [b"a"]) == [None]
        await store.put(partition, claim.epoch, [(b"a", b"2")])
        await store.save(partition, claim.epoch, Checkpoint(7, b"m", 9), [])
        with pytest.raises(Fenced):
            await store.put(partition, broken_off, [(b"a", b"1")])
        assert await changed(store, partition, claim.epoch, recent=True) == set()
        claim = await store.claim(partition)
        assert claim.checkpoint == Checkpoint(7, b"m", 9)
        assert await store.load(partition, claim.epoch, [b"a", b"b"]) == [b"2", None]

    run(scenario)
