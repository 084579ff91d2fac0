"""The last stage's work: feature vector, score, decision, and the message that carries them.

A score that is no probability never leaves: the event is scored by the model that was in use before, or by the
policy's prior, and says so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import starmap
from math import isnan
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.events import Reason, Score
from streams.decisions.lists import EntityLists
from streams.decisions.verdicts import NO_EFFECTS, NO_REASON, Given
from streams.features.vector import assemble
from streams.metrics import Metrics
from streams.models.calibration import Calibrator
from streams.models.compiled import Explainer, Scorer
from streams.models.learner import FAILURES
from streams.runtime.hop import HopRows
from streams.usecases import UseCase

FALLBACK = "fallback"
"""The rule of a decision on a score that is not the champion's, as the champion had none."""


class Challenger(NamedTuple):
    """A model that scores in the shadow of the champion, and decides nothing."""

    recipe: str
    scorer: Scorer
    calibrator: Calibrator


@dataclass(frozen=True, eq=False)
class ServingModel:
    """What is in use: a champion, by its id, and its challengers; swapped whole between two batches."""

    model_id: str
    scorer: Scorer
    created_at: int
    calibrator: Calibrator = field(default_factory=Calibrator)
    explainer: Explainer | None = None
    challengers: tuple[Challenger, ...] = ()


class _Said(NamedTuple):
    """What a model says of n events, column by column."""

    model_ids: list[str]
    scores: list[float]
    raw: list[float]
    decisions: list[str]
    rules: list[str]
    reasons: list[tuple[Reason, ...]]


class ScoreWriter:
    """Scores rows with the model in use and writes them as `Score` messages."""

    def __init__(self, usecase: UseCase, metrics: Metrics) -> None:
        self._features = usecase.features
        self._verdicts, self._policy = usecase.verdicts, usecase.policy.version
        # Structs with the features' and entities' names encode ten times as fast as dictionaries.
        self._feature_struct = _struct("Features", usecase.features.names, float)
        self._entity_struct = _struct("Entities", usecase.entities, str)
        self._score_struct = _struct("Score", Score.__struct_fields__, Any)
        self._encode = msgspec.json.Encoder().encode
        self._not_finite = metrics.scores_not_finite
        prior = usecase.policy.prior
        self._prior = ServingModel("prior", lambda rows: np.full(len(rows), prior), 0, Calibrator())
        self._current = self._previous = self._prior

    def write(
        self, rows: HopRows, staged: NDArray[np.float64], model: ServingModel, lists: EntityLists, now: int
    ) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values of the scores of `rows`, all events; `staged` are the last stage's features."""
        values = len(self._features.values)
        vectors = assemble(self._features, rows.times, rows.numbers, [rows.numbers[:, values + 1 :], staged])
        said = self._judge(vectors, model, lists.verdicts(rows.texts[1:]))
        n = len(rows)
        messages = map(
            self._score_struct,
            rows.texts[0],
            rows.times.tolist(),
            map(self._entity_struct, *rows.texts[1:]),
            starmap(self._feature_struct, vectors.tolist()),
            said.scores,
            said.decisions,
            said.model_ids,
            [self._features.fingerprint] * n,
            rows.received.tolist(),
            [now] * n,
            said.raw,
            self._shadows(vectors, model.challengers),
            [self._policy] * n,
            said.rules,
            said.reasons,
        )
        return [text.encode() for text in rows.texts[0]], list(map(self._encode, messages))

    def _judge(self, vectors: NDArray[np.float64], model: ServingModel, listed: NDArray[np.int64]) -> _Said:
        """Return what is said of the events, by whichever model can."""
        if model.model_id != self._current.model_id:
            self._previous, self._current = self._current, model
        said, unfit = self._say(vectors, model, listed)
        if unfit:
            self._not_finite.labels("champion").inc(unfit)
            self._current = self._previous  # this one is none to go back to
            for other in self._previous, self._prior:
                if unfit:
                    unfit = self._say_again(said, vectors, other, listed)
        return said

    def _say(self, vectors: NDArray[np.float64], model: ServingModel, listed: NDArray[np.int64]) -> tuple[_Said, int]:
        """Return what `model` says of the events, and of how many it has no score."""
        raw = _raw(model.scorer, vectors)
        scores = model.calibrator.apply(raw)
        effects = _effects(model.explainer, vectors)
        given = self._verdicts.give(vectors, scores, effects, listed)
        decisions, rules = self._verdicts.decisions, self._verdicts.rules
        said = _Said(
            model_ids=[model.model_id] * len(vectors),
            scores=scores.tolist(),
            raw=raw.tolist(),
            decisions=[decisions[verdict] for verdict in given.verdicts],
            rules=[rules[verdict] for verdict in given.verdicts],
            reasons=self._reasons(given) if model.explainer else [()] * len(vectors),
        )
        return said, given.unfit

    def _say_again(
        self, said: _Said, vectors: NDArray[np.float64], model: ServingModel, listed: NDArray[np.int64]
    ) -> int:
        """Put what `model` says in the place of what is missing, and return how much still is."""
        missing = [row for row, score in enumerate(said.scores) if not 0.0 <= score <= 1.0]
        again, unfit = self._say(vectors[missing], model, listed[missing] if listed.size else listed)
        again = again._replace(rules=[rule or FALLBACK for rule in again.rules])
        column: list[Any]
        new: list[Any]
        for column, new in zip(said, again, strict=True):  # type: ignore[assignment]
            for row, value in zip(missing, new, strict=True):
                column[row] = value
        return unfit

    def _reasons(self, given: Given) -> list[tuple[Reason, ...]]:
        names = self._features.names
        columns = (
            [Reason(names[feature], effect) for feature, effect in zip(features, effects, strict=True)]
            for features, effects in zip(given.reasons, given.effects, strict=True)
        )
        reasons = list(zip(*columns, strict=True))
        if NO_REASON in given.reasons[-1]:
            return [tuple(reason for reason in few if reason.effect) for few in reasons]
        return reasons

    def _shadows(self, vectors: NDArray[np.float64], challengers: Sequence[Challenger]) -> Iterable[Any]:
        """Return what the challengers say of each event, by recipe; who has no score says nothing."""
        if not challengers:
            return [{}] * len(vectors)
        columns = []
        for challenger in challengers:
            scores = challenger.calibrator.apply(_raw(challenger.scorer, vectors)).tolist()
            if isnan(sum(scores)):
                self._not_finite.labels("challenger").inc(sum(map(isnan, scores)))
                scores = [msgspec.UNSET if isnan(score) else score for score in scores]
            columns.append(scores)
        return map(_struct("Shadow", tuple(one.recipe for one in challengers), Any), *columns)


def _raw(scorer: Scorer, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the raw scores, NaN for a batch over which the model's arithmetic breaks down."""
    try:
        return scorer(vectors)
    except FAILURES:
        return np.full(len(vectors), np.nan)


def _effects(explainer: Explainer | None, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what moved the scores, nothing where that cannot be said."""
    try:
        return explainer.effects(vectors) if explainer else NO_EFFECTS
    except FAILURES:
        return NO_EFFECTS


@cache
def _struct(name: str, fields: tuple[str, ...], type_: Any) -> Callable[..., Any]:
    """Return a struct that is encoded with these fields; they need not be identifiers, as recipes' names are not."""
    names = {f"field_{number}": field for number, field in enumerate(fields)}
    return msgspec.defstruct(name, [(field, type_) for field in names], rename=names, gc=False)
