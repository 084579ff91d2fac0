"""The Redis URL: what redis-py takes, or several nodes of a cluster, checked before anything connects."""

from re import fullmatch
from urllib.parse import SplitResult, parse_qsl, urlsplit

from streams.settings.parsing import address, authority

NUMBER, TEXT = r"\d+(\.\d+)?", r".+"
REDIS_OPTIONS = {
    "db": r"\d+",
    "max_connections": r"[1-9]\d*",
    "health_check_interval": r"\d+",
    "socket_timeout": NUMBER,
    "socket_connect_timeout": NUMBER,
    "client_name": TEXT,
    "ssl_ca_certs": TEXT,
    "ssl_certfile": TEXT,
    "ssl_keyfile": TEXT,
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": "True|False",
}
"""What may follow the `?` of a Redis URL, each with what its value must look like."""

CLUSTERS = ("redis+cluster", "rediss+cluster")


def redis_url(text: str) -> str:
    """Refuse here what redis-py would only when it connects.

    No message repeats any of it: a password with a `/`, `?` or `#` in it may be taken for any part.
    """
    try:
        parts = urlsplit(text)
        _ = parts.scheme in CLUSTERS or parts.port
        (parts.hostname or "").encode("idna")
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("is no URL: a wrong host, port or option (a password must be percent-encoded)") from None
    if parts.scheme not in ("redis", "rediss", "unix", *CLUSTERS) or not text.startswith(f"{parts.scheme}://"):
        schemes = "redis://, rediss://, unix://, redis+cluster:// or rediss+cluster://"
        raise ValueError(f"must be a URL that begins with {schemes}")
    if parts.scheme in CLUSTERS:
        _cluster(parts, options)
    elif parts.scheme == "unix":
        if len(parts.path) < 2:
            raise ValueError("must name the socket: unix:///PATH")
    elif not parts.hostname or not fullmatch(r"/?|/\d+/?", parts.path):
        raise ValueError("must be redis://HOST:PORT/DB (a password must be percent-encoded)")
    if "#" in text or not all(fullmatch(REDIS_OPTIONS.get(name, "(?!)"), value) for name, value in options):
        raise ValueError(f"has a wrong option; there are {', '.join(REDIS_OPTIONS)}")
    if not parts.scheme.startswith("rediss") and any(name.startswith("ssl_") for name, _ in options):
        raise ValueError("has ssl_ options, which are for rediss:// and rediss+cluster:// alone")
    if ca := dict(options).get("ssl_ca_certs"):
        authority(ca)
    return text


def _cluster(parts: SplitResult, options: list[tuple[str, str]]) -> None:
    """Refuse the URL of a cluster that has a database, as a cluster has but one, or another shape than it must."""
    try:
        for one in parts.netloc.rpartition("@")[2].split(","):
            address(one)
            urlsplit(f"//{one}").port  # noqa: B018 - refuses a host with half of its brackets
    except ValueError:
        parts = parts._replace(path="?")
    if not fullmatch("/?", parts.path) or "db" in dict(options):
        raise ValueError("must be redis+cluster://HOST:PORT,HOST:PORT (a password must be percent-encoded)")
