"""`python -m services.switchover fraud --from NAME`: wait until the deployment NAME may be stopped."""

import argparse
import asyncio
import logging
import os
import sys

from services.switchover.switchover import NotYet, Switchover
from streams.arguments import above_zero, argument
from streams.console import ends_quietly, refuse
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, answering, check_topics
from streams.settings import Settings, SettingsError
from streams.usecases import USECASES

DEPLOYMENT = "HEADRACE_DEPLOYMENT"


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Wait as told; the exit code is 0 once the old deployment may be stopped, 1 as long as it may not."""
    options = _parser().parse_args(arguments)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters of its warnings is in the errors raised
    try:
        _switch(options, Settings.read(os.environ))
    except SettingsError as error:
        return refuse(error, 2)
    except (KafkaUnavailable, TopicMismatch, NotYet) as error:
        return refuse(error, 1)
    return 0


def _switch(options: argparse.Namespace, settings: Settings) -> None:
    usecase = USECASES[options.usecase]
    try:
        old = Settings.read({DEPLOYMENT: options.old}).deployment
    except SettingsError as error:
        raise SettingsError(str(error).replace(DEPLOYMENT, "--from")) from None
    if old == settings.deployment:
        raise SettingsError(f"{DEPLOYMENT}: is to name the deployment that takes over, --from the one before it")
    leaving, coming = usecase.deployed(old), usecase.deployed(settings.deployment, publishing=True)
    for one in leaving, coming:
        check_topics(settings.kafka, one.topics(settings.partitions))
    with answering(settings.kafka):
        asyncio.run(Switchover(settings.kafka, leaving, coming, settings.partitions, options.timeout, _say).run())


def _say(what: str) -> None:
    print(what, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.switchover",
        description="Wait until the deployment that HEADRACE_DEPLOYMENT names has taken over from another one: it "
        "publishes on every partition, and the other has scored all that came before. Changes nothing itself.",
        epilog="The steps before and after it: infra/decisions/0011-deployments.md.",
    )
    add = parser.add_argument
    add("usecase", choices=sorted(USECASES))
    add("--from", dest="old", default="", metavar="NAME", help="the deployment to be stopped (default: the unnamed)")
    add(
        "--timeout",
        type=argument(above_zero),
        default=600.0,
        metavar="S",
        help="seconds to wait at most for each step (default: 600)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
