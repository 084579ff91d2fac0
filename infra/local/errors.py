"""What can go wrong with a local server, said in one line."""


class LocalServerError(Exception):
    """A local server could not be had; the message names the server and the cause."""
