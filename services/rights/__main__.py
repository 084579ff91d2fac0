"""`python -m services.rights fraud`: each service allowed what it needs, and nothing else."""

import argparse
import os
import sys
from collections.abc import Mapping

from redis.exceptions import RedisError

from services.rights import cassandra, kafka, redis
from services.rights.table import Rights, table, user
from streams.console import ends_quietly, refuse
from streams.runtime.topics import KafkaUnavailable
from streams.settings import Settings, SettingsError
from streams.stores.history import StoreUnreachable
from streams.usecases import USECASES, UseCase


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Do it; the exit code is 0 if all is granted, 1 if not, 2 for a wrong setting or argument."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.read(os.environ)
        usecase = USECASES[options.usecase].deployed(settings.deployment, settings.publish)
        rights = {user(usecase, service): one for service, one in table(usecase, settings.partitions).items()}
        if options.show:
            _show(rights, settings)
        else:
            _grant(usecase, rights, settings)
    except SettingsError as error:
        return refuse(error, 2)
    except RedisError as error:
        return refuse(ValueError(f"HEADRACE_REDIS: {error}"), 1)
    except (KafkaUnavailable, StoreUnreachable) as error:
        return refuse(error, 1)
    return 0


def _show(rights: Mapping[str, Rights], settings: Settings) -> None:
    for name, one in rights.items():
        print(f"# {name}")
        for entry in kafka.allowed(name, one):
            print(f"kafka-acls.sh --add {entry}")
        if rule := redis.rule(one):
            print(f"ACL SETUSER {name} {' '.join(rule)}")
        for statement in cassandra.grants(name, one, settings.keyspace):
            print(f"{statement};")


def _grant(usecase: UseCase, rights: Mapping[str, Rights], settings: Settings) -> None:
    kafka.grant(settings.kafka, (entry for name, one in rights.items() for entry in kafka.allowed(name, one)))
    redis.grant(settings.redis, {name: rule for name, one in rights.items() if (rule := redis.rule(one))})
    statements = (
        statement for name, one in rights.items() for statement in cassandra.grants(name, one, settings.keyspace)
    )
    cassandra.grant(settings.cassandra, statements)
    print(f"{usecase.full_name}: {len(rights)} users have their rights: {', '.join(rights)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.rights",
        description="Allow each service's user what it needs and nothing else: ACLs in Kafka and Redis, grants in "
        "Cassandra. The users must be there with their passwords, named as USECASE-SERVICE, and the tables; what they "
        "were allowed before stays.",
        epilog="It runs with an administrator's HEADRACE_KAFKA_USER, HEADRACE_REDIS and HEADRACE_CASSANDRA_USER.",
    )
    parser.add_argument("usecase", choices=sorted(USECASES))
    parser.add_argument("--show", action="store_true", help="print the rights in the servers' words and grant none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
