"""What an error of the Cassandra driver says, in a line; where a setting is refused, that line begins with its name."""

from cassandra import AuthenticationFailed, OperationTimedOut, Unauthorized
from cassandra.cluster import NoHostAvailable

from streams.settings import CassandraAccess
from streams.stores.certificate import why_refused
from streams.stores.history import StoreUnreachable


def unreachable(access: CassandraAccess, error: BaseException) -> StoreUnreachable:
    """Return what to raise or tell where the driver gave up with `error`."""
    where, cause = f"Cassandra at {access}", _bottom(error)
    line = (str(cause).splitlines() or [type(cause).__name__])[0]
    if isinstance(cause, AuthenticationFailed):
        who = f"does not let {access.user} in" if access.user else "wants to know the user"
        return StoreUnreachable(f"HEADRACE_CASSANDRA_USER, HEADRACE_CASSANDRA_PASSWORD: {where} {who}")
    if isinstance(cause, Unauthorized):
        return StoreUnreachable(f"HEADRACE_CASSANDRA_USER: {where} does not allow {access.user} that ({line})")
    if isinstance(cause, OperationTimedOut):
        return StoreUnreachable(f"{where}: no answer in time")
    if why := why_refused(line):
        return StoreUnreachable(f"HEADRACE_CASSANDRA_CA: the certificate of {where} is refused: {why}")
    if "WRONG_VERSION_NUMBER" in line:
        return StoreUnreachable(f"HEADRACE_CASSANDRA_CA: {where} speaks no TLS")
    if isinstance(cause, ConnectionResetError) and not access.ca:
        line += "; HEADRACE_CASSANDRA_CA is not set, does it speak TLS alone?"
    return StoreUnreachable(f"{where}: {line}")


def _bottom(error: BaseException) -> BaseException:
    if not isinstance(error, NoHostAvailable):
        return error
    # Where no connection of a session came about the driver lists the nodes, without what went wrong.
    causes = error.errors.values() if isinstance(error.errors, dict) else ()
    return _bottom(next(iter(causes), ConnectionError("no node answers")))
