"""Simulated payments as the streams see them: features folded by the stages' kernel, labels some seconds late."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from services.simulator.fraud import Block, Simulation
from streams.features.pipeline import Events, Labels, Pipeline
from streams.usecases import FRAUD

NAMES = FRAUD.features.names
BEGIN = 1_700_000_000_000  # epoch ms
SECOND = 1000
DELAY_SECONDS = 5
DELAY = DELAY_SECONDS * SECOND


@dataclass(frozen=True)
class Payments:
    """n payments in time order: times int64[n] (epoch ms), features float64[n, F], labels int8[n], which come
    DELAY later; `drift` is the first payment's row after the drift, n where there is none."""

    times: NDArray[np.int64]
    features: NDArray[np.float64]
    labels: NDArray[np.int8]
    drift: int

    def __len__(self) -> int:
        return len(self.times)

    def row_of(self, second: int) -> int:
        """Return the first payment of a second."""
        return int(np.searchsorted(self.times, BEGIN + second * SECOND))

    def seconds(self) -> Iterator[tuple[slice, slice]]:
        """Yield for each second the rows whose labels came in the second before, and the rows of its payments."""
        stop = int(self.times[-1])
        for begin in range(BEGIN, stop + 1, SECOND):
            due = np.searchsorted(self.times + DELAY, (begin - SECOND, begin)).tolist()
            rows = np.searchsorted(self.times, (begin, begin + SECOND)).tolist()
            yield slice(*due), slice(*rows)


def simulate(seed: int, seconds: int, rate: float, drift_second: float = inf) -> Payments:
    """Return `seconds` of payments at `rate` a second, the pattern of fraud being another from `drift_second` on."""
    simulation = Simulation(seed, 5_000, 1_000, rate, drift=drift_second * SECOND)
    begins = range(BEGIN, BEGIN + seconds * SECOND, SECOND)
    blocks = [simulation.block(begin, begin + SECOND) for begin in begins]
    pipeline, features = Pipeline(FRAUD.features), []
    for second, block in enumerate(blocks):
        late = blocks[second - DELAY_SECONDS] if second >= DELAY_SECONDS else None
        features.append(pipeline.fold(_events(block), _labels(late)))
    times = np.concatenate([block.times for block in blocks])
    return Payments(
        times,
        np.concatenate(features),
        np.concatenate([block.labels for block in blocks]),
        int(np.searchsorted(times, BEGIN + min(drift_second, seconds) * SECOND)),
    )


def _events(block: Block) -> Events:
    return Events(_ids(block), block.times, _keys(block), block.amounts[:, None])


def _labels(block: Block | None) -> Labels:
    if block is None:
        return Labels([], np.empty(0, np.int64), {"customer": [], "terminal": []}, np.empty(0))
    return Labels(_ids(block), block.times + DELAY, _keys(block), block.labels.astype(np.float64))


def _ids(block: Block) -> list[bytes]:
    return [b"%d" % number for number in range(block.first, block.first + len(block))]


def _keys(block: Block) -> dict[str, list[bytes]]:
    return {
        "customer": [b"c%d" % number for number in block.customers.tolist()],
        "terminal": [b"t%d" % number for number in block.terminals.tolist()],
    }
