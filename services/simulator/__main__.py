"""`python -m services.simulator fraud --rate N`: live payments with fraud in them, and their labels, late."""

import argparse
import os
import sys
from functools import partial
from math import inf

from services.simulator.fraud import Simulation
from services.simulator.live import Live
from streams.arguments import above_zero, argument, rate, whole
from streams.console import ends_quietly
from streams.metrics import Metrics
from streams.process import show
from streams.runtime.producer import Producer, stop_flag
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, create_topics
from streams.settings import Settings, SettingsError
from streams.stores.files import milliseconds
from streams.usecases import USECASES

SIMULATIONS = {"fraud": Simulation}
LINGER_MS = 1
MOST_ENTITIES = 1_000_000  # of a kind, all in memory


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Simulate as told; the exit code is 0 when stopped or when the time is over."""
    options = _parser().parse_args(arguments)
    try:
        _simulate(options, Settings.read(os.environ))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KafkaUnavailable, TopicMismatch) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: nothing was sent", file=sys.stderr)
        return 130
    return 0


def _simulate(options: argparse.Namespace, settings: Settings) -> None:
    topics = USECASES[options.usecase].deployed(settings.deployment, settings.publish).topics(settings.partitions)
    simulation = SIMULATIONS[options.usecase](
        options.seed, options.customers, options.terminals, options.rate, drift=options.drift
    )
    create_topics(settings.kafka, topics, settings.replication)
    metrics = Metrics("simulator")
    show(metrics, settings)
    stop = stop_flag()
    with Producer(settings.kafka, LINGER_MS) as producer:
        live = Live(producer, topics, simulation, options.label_delay, metrics, stop, options.labels == "frauds")
        print("ready", file=sys.stderr, flush=True)
        live.run(options.duration)
    print(f"sent: {live.sent_events} events and {live.sent_labels} labels, at most {live.late_ms} ms late")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.simulator",
        description="Send live card payments at a steady rate, open loop. About one in forty is fraudulent: "
        "outsized amounts, stolen cards with bursts of large payments (30 s each), compromised terminals "
        "(two minutes each). Every payment gets its label, or the fraudulent ones alone; with the demo's label delay "
        "of 5 s a model that learns online is clearly better than chance within 30 s.",
        epilog="Servers and partitions come from HEADRACE_KAFKA and HEADRACE_PARTITIONS.",
    )
    add = parser.add_argument
    add("usecase", choices=sorted(SIMULATIONS))
    add("--rate", type=argument(rate), required=True, metavar="N", help="payments a second")
    add(
        "--duration",
        type=argument(above_zero),
        default=inf,
        metavar="S",
        help="seconds to go on (default: until stopped); labels not due by then are never sent",
    )
    add("--seed", type=argument(whole), default=1, metavar="K", help="the same seed simulates the same (default: 1)")
    add(
        "--label-delay",
        type=argument(milliseconds),
        default=milliseconds("20s"),
        metavar="20s",
        help="how long after its payment a label comes (default: 20s)",
    )
    add(
        "--drift",
        type=argument(milliseconds),
        default=inf,
        metavar="60s",
        help="how long after the start fraud takes another pattern: next to nothing instead of much (default: never)",
    )
    add(
        "--labels",
        choices=("all", "frauds"),
        default="all",
        help="which payments get one; with frauds, services.matured assumes the others to be legitimate (default: all)",
    )
    entities = argument(partial(whole, most=MOST_ENTITIES))
    add("--customers", type=entities, default=5_000, metavar="N", help="default: 5000")
    add("--terminals", type=entities, default=1_000, metavar="N", help="default: 1000")
    return parser


if __name__ == "__main__":
    sys.exit(main())
