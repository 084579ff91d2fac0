"""`python -m services.feedback fraud`: labels over HTTP, one or many, into the label topic."""

import argparse
import asyncio
import logging
import os
import sys

from aiokafka.errors import KafkaError

from services.feedback.worker import Feedback
from streams.console import ends_quietly
from streams.metrics import Metrics
from streams.process import show
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, create_topics, unavailable
from streams.runtime.watchdog import Watchdog
from streams.settings import Settings, SettingsError
from streams.usecases import USECASES


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped (0); 1 where Kafka is out of reach, 2 where a setting is wrong."""
    usecase = USECASES[_parser().parse_args(arguments).usecase]
    try:
        settings = Settings.read(os.environ)
        topics = usecase.deployed(settings.deployment, settings.publish).topics(settings.partitions)
        metrics = Metrics("feedback")
        feedback = Feedback(settings, topics.labels, metrics)
        _quiet()
        show(metrics, settings, {"/livez": feedback.health.livez, "/readyz": feedback.readyz})
        create_topics(settings.kafka, topics, settings.replication)
        with Watchdog("feedback", feedback.health, settings.stall_seconds):
            asyncio.run(feedback.run())
    except SettingsError as error:
        return _refuse(str(error), 2)
    except OSError as error:
        at = f"HEADRACE_FEEDBACK_HOST {settings.feedback_host}, HEADRACE_FEEDBACK_PORT {settings.feedback_port}"
        return _refuse(f"{at}: {error.strerror}", 2)
    except (KafkaUnavailable, TopicMismatch) as error:
        return _refuse(str(error), 1)
    except KafkaError as error:
        return _refuse(str(unavailable(settings.kafka, error)), 1)
    return 0


def _quiet() -> None:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the service's own lines say it


def _refuse(why: str, code: int) -> int:
    print(f"feedback: {why}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.feedback",
        description="Take labels by POST /labels: one as a JSON object, many as an array (application/json) or one a "
        "line (application/x-ndjson). Each is checked; the sound ones are in Kafka when the answer comes (202), which "
        "names the others with the reason. What is sent twice counts once.",
        epilog="HEADRACE_FEEDBACK_HOST and HEADRACE_FEEDBACK_PORT say where, HEADRACE_FEEDBACK_TOKEN what the header "
        "`Authorization: Bearer TOKEN` must bring; without it everybody may label.",
    )
    parser.add_argument("usecase", choices=sorted(USECASES))
    return parser


if __name__ == "__main__":
    sys.exit(main())
