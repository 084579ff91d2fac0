"""The last stage's work: feature vector, score, decision, and the message that carries them."""

from collections.abc import Callable
from functools import cache
from itertools import starmap
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.events import Score
from streams.features.vector import assemble
from streams.models.compiled import Scorer
from streams.runtime.hop import HopRows
from streams.usecases import UseCase


class ServingModel:
    """The model in use: a scorer and its id, swapped whole between two batches."""

    def __init__(self, model_id: str, scorer: Scorer, created_at: int) -> None:
        self.model_id, self.scorer, self.created_at = model_id, scorer, created_at


class ScoreWriter:
    """Scores rows with the model in use and writes them as `Score` messages."""

    def __init__(self, usecase: UseCase) -> None:
        self._usecase = usecase
        self._features = usecase.features
        self._fingerprint = usecase.features.fingerprint
        # Structs with the features' and entities' names encode ten times as fast as dictionaries.
        self._feature_struct = _struct("Features", usecase.features.names, float)
        self._entity_struct = _struct("Entities", usecase.entities, str)
        self._score_struct = _struct("Score", Score.__struct_fields__[:10], Any)  # what has no default
        self._encode = msgspec.json.Encoder().encode

    def write(
        self, rows: HopRows, staged: NDArray[np.float64], model: ServingModel, now: int
    ) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values of the scores of `rows`, all events; `staged` are the last stage's features."""
        values = len(self._features.values)
        vectors = assemble(self._features, rows.times, rows.numbers, [rows.numbers[:, values + 1 :], staged])
        scores = model.scorer(vectors)
        n = len(rows)
        messages = map(
            self._score_struct,
            rows.texts[0],
            rows.times.tolist(),
            map(self._entity_struct, *rows.texts[1:]),
            starmap(self._feature_struct, vectors.tolist()),
            scores.tolist(),
            self._usecase.verdicts.decide(vectors, scores),
            [model.model_id] * n,
            [self._fingerprint] * n,
            rows.received.tolist(),
            [now] * n,
        )
        return [text.encode() for text in rows.texts[0]], list(map(self._encode, messages))


@cache
def _struct(name: str, fields: tuple[str, ...], type_: Any) -> Callable[..., Any]:
    return msgspec.defstruct(name, [(field, type_) for field in fields], gc=False)
