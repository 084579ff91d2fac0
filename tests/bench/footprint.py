"""What an entity's checkpoint takes in Valkey."""

from dataclasses import dataclass

from redis import Redis

SCAN_COUNT = 1000


@dataclass(frozen=True)
class Footprint:
    """Entities with a checkpoint, the mean size of its bytes by entity, and the server's memory for all of it."""

    entities: dict[str, int]
    state_bytes: dict[str, float]
    server_bytes_per_entity: float

    @property
    def bytes_per_entity(self) -> float:
        """The mean size of a state over all entities."""
        total = sum(self.state_bytes[entity] * count for entity, count in self.entities.items())
        return total / sum(self.entities.values())


def used_memory(url: str) -> int:
    """Return the bytes that the server has in use."""
    with Redis.from_url(url) as client:
        return int(client.info("memory")["used_memory"])


def footprint(url: str, usecase: str, entities: tuple[str, ...], empty: int) -> Footprint:
    """Read the sizes of all checkpointed states; `empty` is what the server used before the pipeline started."""
    sizes: dict[str, list[int]] = {entity: [] for entity in entities}
    with Redis.from_url(url) as client:
        used = int(client.info("memory")["used_memory"])
        for entity in entities:
            for key in client.scan_iter(match=f"{{{usecase}.{entity}.*}}:*:states:*", count=SCAN_COUNT):
                sizes[entity] += map(len, client.hvals(key))
    counts = {entity: len(some) for entity, some in sizes.items()}
    means = {entity: sum(some) / max(len(some), 1) for entity, some in sizes.items()}
    return Footprint(counts, means, (used - empty) / max(sum(counts.values()), 1))
