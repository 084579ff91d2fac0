"""The rights on Kafka: its ACLs, each of which allows a user one operation."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType
from kafka.errors import AuthorizationError

from services.rights.table import Rights
from streams.runtime.topics import KafkaUnavailable, asked, unavailable
from streams.settings import Kafka


class Allowed(NamedTuple):
    """One operation on a topic or group, or on all whose names begin as it says with a `*` at the end."""

    user: str
    operation: str  # read, write or describe
    kind: str  # topic or group
    name: str

    def __str__(self) -> str:
        pattern = " --resource-pattern-type prefixed" if self.name.endswith("*") else ""
        return (
            f"--allow-principal User:{self.user} --operation {self.operation.title()} "
            f"--{self.kind} {self.name.rstrip('*')}{pattern}"
        )


def allowed(user: str, rights: Rights) -> Iterator[Allowed]:
    """Yield what a user is allowed; whoever reads or writes may describe as well, so that is not said again."""
    for name in rights.reads:
        yield Allowed(user, "read", "topic", name)
    for name in rights.writes:
        yield Allowed(user, "write", "topic", name)
    for name in rights.sees:
        if name not in (*rights.reads, *rights.writes):
            yield Allowed(user, "describe", "topic", name)
    for name in rights.groups:
        yield Allowed(user, "read", "group", name)
    for name in rights.watches:
        yield Allowed(user, "describe", "group", name)


def grant(kafka: Kafka, entries: Iterable[Allowed]) -> None:
    """Allow all of it. Raises KafkaUnavailable."""
    acls = [_acl(entry) for entry in entries]
    failed = asked(kafka, lambda admin: admin.create_acls(acls))["failed"]
    if failed:
        raise refused(kafka, failed[0]())


def refused(kafka: Kafka, error: Exception) -> KafkaUnavailable:
    """Return what to raise where the brokers take no ACL of this user, or of nobody."""
    if isinstance(error, AuthorizationError):
        return unavailable(kafka, error)
    return KafkaUnavailable(f"Kafka at {kafka} does not take ACLs ({type(error).__name__}): has it an authorizer?")


def _acl(entry: Allowed) -> ACL:
    prefixed = entry.name.endswith("*")
    pattern = ACLResourcePatternType.PREFIXED if prefixed else ACLResourcePatternType.LITERAL
    return ACL(
        principal=f"User:{entry.user}",
        host="*",
        operation=ACLOperation[entry.operation.upper()],
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(ResourceType[entry.kind.upper()], entry.name.rstrip("*"), pattern),
    )
