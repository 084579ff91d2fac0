"""The fraud use case with a window more, as a changed version of the code would declare it.

`python -m tests.wider SERVICE …` runs a service of that version.
"""

import runpy
import sys
from dataclasses import replace

from streams.features.spec import DAY, HOUR, Aggregate, Stage, Window, windowed
from streams.usecases import FRAUD, USECASES

DAYS_45, HOURS_3 = Window("45d", 45 * DAY), Window("3h", 3 * HOUR)


def _wider(stage: Stage, *windows: Window) -> Stage:
    first, *others = stage.views
    features = (*first.features, *windowed(f"{stage.entity}_wider_count", Aggregate.COUNT, *windows))
    return replace(stage, views=(replace(first, features=features), *others))


CUSTOMER, TERMINAL = FRAUD.features.stages
# One stage keeps its entities' records for longer, the other only reads more off them.
STAGES = (_wider(CUSTOMER, DAYS_45), _wider(TERMINAL, HOURS_3))
WIDER = replace(FRAUD, features=replace(FRAUD.features, stages=STAGES))

if __name__ == "__main__":
    USECASES[WIDER.name] = WIDER
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
