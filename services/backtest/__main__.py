"""`python -m services.backtest fraud --input FILE --output SCORES.parquet`: the streams over a file, without Kafka."""

import argparse
import math
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from services.backtest import output
from services.backtest.run import Scored, backtest
from streams.arguments import argument
from streams.console import ends_quietly
from streams.models.recipes import RECIPES
from streams.stores.files import FileError, mapping, milliseconds, read
from streams.usecases import USECASES


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Run the backtest as told; the exit code is 0 once the scores are written."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = time.monotonic()
    try:
        with output.whole_file(options.output) as partial:
            events, scored = _backtest(options, partial)
    except FileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {options.output}: cannot be written: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        return 130
    print(f"{options.output}: {events} events scored in {time.monotonic() - begin:.0f} s, {_learnt(scored)}")
    return 0


def _backtest(options: argparse.Namespace, partial: Path) -> tuple[int, Scored]:
    events = read(options.input, USECASES[options.usecase], options.columns)
    if events.labels is None:
        raise FileError(f"{options.input}: has no column label; name it by --columns label=COLUMN")
    with tqdm(total=len(events), unit=" events", desc=f"{options.usecase} backtest", mininterval=0.5) as bar:
        scored = backtest(events, options.label_delay, options.refresh, bar.update, options.recipe)
    output.write(partial, output.table(events, scored))
    return len(events), scored


def _learnt(scored: Scored) -> str:
    learner = scored.learner
    quality = defaultdict(lambda: math.nan, scored.progressive.measures(learner.recipe))
    refused = f" ({learner.examples_refused} refused: not finite or too large)" if learner.examples_refused else ""
    return (
        f"{learner.examples_learnt} labels learnt{refused}; of the newest: AUC {quality['auc']:.3f}, "
        f"average precision {quality['average_precision']:.3f}, log loss {quality['log_loss']:.4f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.backtest",
        description="Score a file of labelled events as the live streams would, in event-time order, learning each "
        "label when it is due. Writes one row an event: id, time, label, score, decision, model and all features.",
    )
    add = parser.add_argument
    add("usecase", choices=sorted(USECASES))
    add("--input", type=Path, required=True, metavar="FILE", help="a Parquet or CSV file")
    add("--output", type=Path, required=True, metavar="SCORES.parquet", help="the file to write")
    add(
        "--columns",
        type=argument(mapping),
        default={},
        metavar="FIELD=COLUMN,…",
        help="the columns whose names differ from the event's fields; label=COLUMN for the label",
    )
    add(
        "--label-delay",
        type=argument(milliseconds),
        default=milliseconds("7d"),
        metavar="7d",
        help="how long after its event a label comes, such as 7d, 12h or 20s (default: 7d)",
    )
    add(
        "--refresh",
        type=argument(milliseconds),
        default=milliseconds("1h"),
        metavar="1h",
        help="stream time between two models that score (default: 1h)",
    )
    add("--recipe", choices=sorted(RECIPES), help="the model to learn and score with (default: the use case's first)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
