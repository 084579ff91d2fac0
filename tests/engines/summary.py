"""What ran on each engine and what did not, for the end of a test run."""

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

COMMANDS = {"local": "make test", "containers": "make test-containers"}


def told(reports: Iterable[object], chosen: str) -> Iterator[str]:
    """One line an engine: how many integration tests ran on it, and why others did not."""
    ran, left = Counter[str](), {engine: Counter[str]() for engine in COMMANDS}
    for report in reports:
        if not isinstance(report, pytest.TestReport):
            continue
        engine = dict(report.user_properties).get("engine")
        if engine and report.skipped:  # on containers, those of local servers are left out too
            left["containers" if chosen == "containers" else str(engine)][reason(report)] += 1
        elif engine and (report.when == "call" or report.failed):
            ran[str(engine)] += 1
    for engine, command in COMMANDS.items():
        line = f"{engine}: {ran[engine] or 'no'} integration test{'s' * (ran[engine] != 1)} ran"
        line += "".join(f"; {count} did not: {why}" for why, count in left[engine].most_common())
        yield line if engine == chosen else f"{line}; `{command}` runs the suite on it"


def reason(report: pytest.TestReport) -> str:
    """Why a test was skipped, in the words of its mark."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(getattr(report, "wasxfail", "")) or "skipped"
