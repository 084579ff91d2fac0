"""The block and allow lists of a use case's entities, as the verdict they have on each event."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.decisions.verdicts import NO_LISTS, UNLISTED, Verdicts


def key_of(entity: str, id_: str) -> bytes:
    """Return the key of an entity's record in the topic of lists."""
    return f"{entity}:{id_}".encode()


class EntityLists:
    """Which entities are listed; an entity is on one list at most.

    >>> from streams.usecases import FRAUD
    >>> lists = EntityLists(FRAUD.verdicts, FRAUD.entities)
    >>> lists.put("customer", "c7", "block")
    >>> [FRAUD.verdicts.rules[one] for one in lists.verdicts([["c7"], ["t1"]]).tolist()]
    ['block customer']
    """

    def __init__(self, verdicts: Verdicts, entities: Sequence[str]) -> None:
        self._numbers = verdicts.listed
        self._listed: dict[str, dict[str, int]] = {entity: {} for entity in entities}

    def __len__(self) -> int:
        return sum(map(len, self._listed.values()))

    def put(self, entity: str, id_: str, list_: str | None) -> None:
        """Put the `entity` with the id on a list, or on none; raise KeyError where there is no such entity or list."""
        ids = self._listed[entity]
        if list_ is None:
            ids.pop(id_, None)
        else:
            ids[id_] = self._numbers[list_, entity]

    def verdicts(self, ids: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """Return the lists' verdict on each of n events, `NO_LISTS` where nobody is listed; `ids` has n a entity."""
        strongest: list[int] | None = None
        for listed, column in zip(self._listed.values(), ids, strict=True):
            if listed:
                verdicts = [listed.get(one, UNLISTED) for one in column]
                strongest = verdicts if strongest is None else list(map(max, strongest, verdicts))
        return NO_LISTS if strongest is None else np.array(strongest, np.int64)
