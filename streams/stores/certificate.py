"""Why a server's certificate is refused: the clients of the stores wrap the error, so it is in their words."""

from re import search


def why_refused(error: str) -> str | None:
    """Return what an error says is wrong with the certificate, None if it is about something else.

    >>> why_refused("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1016)")
    'certificate has expired'
    >>> why_refused("Connection refused")
    """
    why = search(r"certificate verify failed: (.*?)( \(_ssl|$)", error)
    return why and why[1]
