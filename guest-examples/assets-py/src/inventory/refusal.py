"""What this extension itself refuses. What storage refuses comes as `Err`, see `store`."""

from collections.abc import Mapping


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


class BadRequest(Refusal):
    """The request itself is wrong; the message says what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "BAD_REQUEST", message)
