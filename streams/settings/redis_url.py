"""The Redis URL: what redis-py takes, checked before it connects."""

from re import fullmatch
from urllib.parse import parse_qsl, urlsplit

from streams.settings.parsing import authority

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


def redis_url(text: str) -> str:
    """Refuse here what redis-py would only when it connects.

    No message repeats any of it: a password with a `/`, `?` or `#` in it may be taken for any part.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("is no URL: a wrong host, port or option (a password must be percent-encoded)") from None
    if parts.scheme not in ("redis", "rediss", "unix") or not text.startswith(f"{parts.scheme}://"):
        raise ValueError("must be a URL that begins with redis://, rediss:// or unix://")
    if parts.scheme == "unix":
        if len(parts.path) < 2:
            raise ValueError("must name the socket: unix:///PATH")
    elif not parts.hostname or not fullmatch(r"/?|/\d+/?", parts.path):
        raise ValueError("must be redis://HOST:PORT/DB (a password must be percent-encoded)")
    if "#" in text or not all(fullmatch(REDIS_OPTIONS.get(name, "(?!)"), value) for name, value in options):
        raise ValueError(f"has a wrong option; there are {', '.join(REDIS_OPTIONS)}")
    if parts.scheme != "rediss" and any(name.startswith("ssl_") for name, _ in options):
        raise ValueError("has ssl_ options, which are for rediss:// alone")
    if ca := dict(options).get("ssl_ca_certs"):
        authority(ca)
    return text
