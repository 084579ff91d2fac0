"""The rights on Redis: an ACL rule for whoever keeps state there."""

from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from redis import Redis
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from services.rights.table import Rights

SOCKET_SECONDS = 10.0

COMMANDS = (
    # A connection's; it tries CLIENT SETINFO as well and can do without, and Redis before 7.2 does not even know it.
    *("ping", "hello", "select", "client|setname", "cluster|slots"),
    *("evalsha", "script|load", "sscan", "info", "time"),  # the state store's, and those of its scripts
    *("hget", "hset", "hmget", "hdel", "hlen", "hincrby", "hexists"),
    *("set", "exists", "rename", "unlink", "pexpire", "sadd", "sunionstore"),
    *("watch", "multi", "exec"),  # a save is a transaction
)


def rule(rights: Rights) -> list[str] | None:
    """Return the rule in Redis's own words, None for a user who has nothing there.

    It adds to what the user has: another deployment's keys stay, like the password.
    """
    if not rights.states:
        return None
    return [*(f"~{prefix}*" for prefix in rights.states), *(f"+{command}" for command in COMMANDS)]


def grant(url: str, rules: Mapping[str, list[str]]) -> None:
    """Give users their rules, on every node, and keep them where there is a file for that. Raises RedisError."""
    try:
        with _client(url) as client:
            for name, words in rules.items():
                _everywhere(client, "ACL SETUSER", name, *words)
            with suppress(ResponseError):  # no file: the rules are elsewhere, or for as long as the server lives
                _everywhere(client, "ACL SAVE")
    except RedisClusterException as error:  # which is no RedisError
        raise RedisError(str(error)) from None


def _client(url: str) -> Redis | RedisCluster:
    parts = urlsplit(url)
    if not parts.scheme.endswith("+cluster"):
        return Redis.from_url(url, socket_timeout=SOCKET_SECONDS)
    login, at, addresses = parts.netloc.rpartition("@")
    first, *others = addresses.split(",")
    one = parts._replace(scheme=parts.scheme.removesuffix("+cluster"), netloc=login + at + first).geturl()
    places = [urlsplit(f"//{other}") for other in others]
    nodes = [ClusterNode(place.hostname, place.port) for place in places]  # type: ignore[no-untyped-call]
    return RedisCluster.from_url(one, startup_nodes=nodes, socket_timeout=SOCKET_SECONDS)


def _everywhere(client: Redis | RedisCluster, *words: str) -> None:
    if isinstance(client, RedisCluster):
        client.execute_command(*words, target_nodes=RedisCluster.ALL_NODES)  # type: ignore[no-untyped-call]
    else:
        client.execute_command(*words)  # type: ignore[no-untyped-call]
