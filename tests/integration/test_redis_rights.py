"""The rights on Redis as a server has them: granting adds, and a cluster is told by whichever node there is."""

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from infra.local.ports import HOST, free_port
from services.rights.redis import grant, rule
from services.rights.table import table
from streams.usecases import FRAUD


def test_a_second_deployment_leaves_the_first_what_it_has(valkey_server: str) -> None:
    """Both have the user in common while one takes over from the other; a stranger's keys are neither's."""
    with Redis.from_url(valkey_server) as admin:
        admin.execute_command("ACL", "SETUSER", "fraud-worker", "reset", "on", ">secret")
    for usecase in FRAUD, FRAUD.deployed("v2"):
        rights = rule(table(usecase, 1)["worker"])
        assert rights
        grant(valkey_server, {"fraud-worker": rights})
    with Redis.from_url(valkey_server.replace("://", "://fraud-worker:secret@")) as redis:
        for deployment in "fraud", "fraud.v2":
            assert redis.hget(f"{{{deployment}.customer.0.0}}:none", "a") is None
        for forbidden in (("HGET", "{ctr.user.0.0}:x", "a"), ("FLUSHALL",), ("KEYS", "*")):
            with pytest.raises(NoPermissionError):
                redis.execute_command(*forbidden)


def test_a_cluster_that_is_away_is_an_error_of_redis() -> None:
    """Whatever the client calls it, so that the command can tell it in a line."""
    with pytest.raises(RedisError, match="reachable"):
        grant(f"redis+cluster://{HOST}:{free_port()},{HOST}:{free_port()}", {"fraud-worker": ["-@all"]})
