"""`python -m tests.scenarios drift|poison`: what becomes of the models when the world or the labels go wrong."""

import argparse
import sys
from pathlib import Path

from infra.processes import ROOT
from streams.console import ends_quietly
from streams.models.recipes import RECIPES
from streams.usecases import FRAUD
from tests.scenarios.drift import run_drift
from tests.scenarios.poison import run_poison

SCENARIOS = {"drift": run_drift, "poison": run_poison}
BUILD = ROOT / "build"


@ends_quietly
def main() -> int:
    """Run the scenarios asked for; the exit code is 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="|".join(SCENARIOS), help="all of them by default")
    parser.add_argument("--seed", type=int, default=1, metavar="K", help="another seed is another run (default: 1)")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default=FRAUD.recipes[0], help="of the champion")
    options = parser.parse_args()
    if unknown := sorted(set(options.scenarios) - set(SCENARIOS)):
        parser.error(f"'{unknown[0]}': there is no such scenario")
    wrong = 0
    for name in options.scenarios or SCENARIOS:
        result = SCENARIOS[name](options.seed, options.recipe)
        picture = _write(BUILD / f"{name}.png", result.picture())
        broken = result.broken()
        wrong += bool(broken)
        print(f"{name}\n{result.told()}\n{picture}")
        print("\n".join(f"NOT KEPT: {promise}" for promise in broken) or "every promise was kept", end="\n\n")
    return min(wrong, 1)


def _write(path: Path, png: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(png)
    return path


if __name__ == "__main__":
    sys.exit(main())
