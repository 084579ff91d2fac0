"""Model swap: follow models and aliases, and put champion and challengers to use between two batches."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

import msgspec

from schemas.events import AliasChange, ModelAnnouncement, ModelSnapshot
from schemas.topics import Topics
from streams.agents.scoring import Challenger, ServingModel
from streams.metrics import Metrics
from streams.models.compiled import explainer, scorer
from streams.models.lessons import recipe_of
from streams.models.recipes import RECIPES
from streams.models.snapshot import ForeignSnapshot, SnapshotRefused, snapshot_of, unseal
from streams.runtime.following import Follower
from streams.runtime.newest import Logged, newest_first
from streams.settings import Kafka
from streams.usecases import UseCase

log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(ModelAnnouncement).decode
_decode_change = msgspec.json.Decoder(AliasChange).decode

MOST_TRIED = 100  # records that are looked at for a first model, and for who is the champion

Swap = Callable[[ServingModel], None]


class ModelFeed:
    """The models of a use case as they are announced, handed to `swap`: the champion with the others in its shadow.

    The champion is the newest model of the recipe that the alias names, the use case's first where none does, or the
    one snapshot that the alias pins. At the start an unlearnt model serves until the newest sound record of the topic
    is found. What has a wrong signature, is of another feature set or of a recipe that is not learnt is refused by
    its offset, and what is in use stays.
    """

    def __init__(
        self, usecase: UseCase, kafka: Kafka, topics: Topics, key: bytes, metrics: Metrics, swap: Swap
    ) -> None:
        self._features, self._recipes = usecase.features, usecase.recipes
        self._kafka, self._key = kafka, key
        self._metrics, self._swap = metrics, swap
        self._models, self._aliases = topics.models.name, topics.aliases.name
        self._follower = Follower(kafka, [self._models, self._aliases], self._take)
        self._champion = usecase.recipes[0]
        self._pinned: ServingModel | None = None
        self._newest: dict[str, ServingModel] = {}

    async def start(self) -> None:
        """Put the newest models to use and begin to follow the topics."""
        recipe, names = self._champion, self._features.names
        self._use(ServingModel(f"{recipe}@0", scorer(RECIPES[recipe].make(names), names), int(time.time() * 1000)))
        await self._follower.start()
        for topic in self._aliases, self._models:
            await self._take_newest(topic, newest_first(self._kafka, topic))
        self._follower.follow()

    async def stop(self) -> None:
        """Follow no longer."""
        await self._follower.stop()

    async def _take_newest(self, topic: str, records: AsyncGenerator[Logged, None]) -> None:
        """Take the first that is sound; `records` are the newest of the topic first."""
        tried = 0
        async with aclosing(records):
            async for record in records:
                tried += 1
                if await self._take(topic, record) or tried == MOST_TRIED:
                    return

    async def _take(self, topic: str, record: Logged) -> bool:
        """Take what a record says; return whether it says what the champion is."""
        place = f"{topic}/0 at offset {record.offset}"
        try:
            done = await (self._change if topic == self._aliases else self._announced)(record.value, place)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, SnapshotRefused) as error:
            self._refuse(place, error)
            return False
        champion = self._pinned or self._newest.get(self._champion) or self._newest.get(self._recipes[0])
        if champion:
            self._use(champion)
        return done

    async def _announced(self, value: bytes, place: str) -> bool:
        announcement = _decode(value)
        ours = [snapshot for snapshot in announcement.models if snapshot.recipe in self._recipes]
        if not ours:
            snapshot_of(announcement, self._champion)  # raises what says whose they are
        sound = dict[str, ServingModel]()
        for snapshot in ours:
            try:
                sound[snapshot.recipe] = await self._open(snapshot)
            except SnapshotRefused as error:
                self._refuse(place, error)
        # What is learnt no more is gone, as far as the record can be believed; of what is refused the last one goes on.
        self._newest = sound if len(sound) == len(ours) else self._newest | sound
        return self._champion in sound

    async def _change(self, value: bytes, place: str) -> bool:
        change = _decode_change(value)
        if change.recipe not in self._recipes:
            raise ForeignSnapshot(f"champion {change.recipe}: it is not among {', '.join(self._recipes)}")
        if change.model and change.model.recipe != change.recipe:
            raise ForeignSnapshot(f"snapshot {change.model.model_id}: pinned as one of {change.recipe}")
        self._pinned = await self._open(change.model) if change.model else None
        self._champion = change.recipe
        log.info(
            "%s: %s is the champion: %s", place, change.model.model_id if change.model else change.recipe, change.reason
        )
        return True

    async def _open(self, snapshot: ModelSnapshot) -> ServingModel:
        """Return a model ready to score; large ones take a while to load: not in the event loop."""
        return await asyncio.to_thread(self._opened, snapshot)

    def _opened(self, snapshot: ModelSnapshot) -> ServingModel:
        names = self._features.names
        model, calibrator = unseal(snapshot, self._key, self._features.fingerprint, names)
        return ServingModel(
            snapshot.model_id, scorer(model, names), snapshot.created_at, calibrator, explainer(model, names)
        )

    def _use(self, champion: ServingModel) -> None:
        others = ((recipe, model) for recipe, model in self._newest.items() if recipe != recipe_of(champion.model_id))
        challengers = tuple(Challenger(recipe, model.scorer, model.calibrator) for recipe, model in others)
        self._metrics.model(champion.model_id, champion.created_at)
        self._swap(replace(champion, challengers=challengers))

    def _refuse(self, place: str, error: Exception) -> None:
        log.error("%s: refused, the model in use stays: %s", place, error)
        self._metrics.models_refused.inc()
