"""A worker's replacement scores at once, however many entities there are: states are loaded when they are needed."""

from pathlib import Path

from redis import Redis

from tests.recovery import BAR, recover


def test_a_replacement_scores_within_five_seconds_of_its_assignment(
    kafka_server: str, valkey_server: str, tmp_path: Path
) -> None:
    """After `kill -9` with 100,000 states (`make recovery`: 1,000,000) under load, and every one of them is used."""
    url = valkey_server.removesuffix("/0") + "/9"
    redis = Redis.from_url(url)
    redis.flushdb()
    taken = recover(kafka_server, url, 100_000, tmp_path)
    assert sum(map(redis.hlen, redis.scan_iter("*:states:*"))) >= taken.entities
    redis.flushdb()
    assert taken.first_score <= BAR
