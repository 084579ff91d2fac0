"""What the machine did meanwhile: how busy it was, and when a host took the processor away for others (Linux only)."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

PERIOD_SECONDS = 1.0
UNSTOLEN_SECONDS = 0.015  # of a processor in a period: no more than one tick of the clock, 0.01


class Watch:
    """Readings of the machine's times, from now on; `look` takes one where the last is `PERIOD_SECONDS` old."""

    def __init__(self, times: Callable[[], Any] = psutil.cpu_times, clock: Callable[[], float] = time.time) -> None:
        self._times, self._clock = times, clock
        self._readings = [(clock(), times())]

    def look(self) -> None:
        if self._clock() - self._readings[-1][0] >= PERIOD_SECONDS:
            self._readings.append((self._clock(), self._times()))

    def shares(self) -> tuple[float, float]:
        """Return how much of all cores' time was not idle, and how much was stolen, from the first reading to now."""
        before, after = self._readings[0][1], self._times()
        spent = {name: getattr(after, name) - getattr(before, name) for name in after._fields if "guest" not in name}
        total = sum(spent.values())
        return 1 - (spent["idle"] + spent.get("iowait", 0.0)) / total, spent.get("steal", 0.0) / total

    def undisturbed(self, moments: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which moments (seconds since the epoch) lie in a period in which nothing was stolen, nor before it.

        Of the period before, what was held up is still on its way. A moment outside the periods lies in none.
        """
        starts = [at for at, _ in self._readings]
        stolen = np.diff([getattr(times, "steal", 0.0) for _, times in self._readings]) > UNSTOLEN_SECONDS
        clean = np.zeros(len(starts) + 1, np.bool_)  # by the number of readings before
        for period in range(len(stolen)):
            clean[period + 1] = not stolen[max(0, period - 1) : period + 1].any()
        among: NDArray[np.bool_] = clean[np.searchsorted(starts, moments, side="right")]
        return among
