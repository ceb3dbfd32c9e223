"""From a method and a path to what answers them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from wit_world.exports.handler import Request, Response

from .refusal import BadRequest, Refusal

MOST_BRACKETS: Final = 500
"""Of a body. With some 1 500 levels of nesting the parser runs over the end of the stack, which
isn't a `RecursionError` here but a trap: nothing can catch it."""


@dataclass(frozen=True)
class Call:
    """A request on its way to what answers it."""

    request: Request
    parameters: Mapping[str, str]

    def query(self, name: str) -> str | None:
        """The first value of a query parameter."""
        values = parse_qs(self.request.query or "", keep_blank_values=True).get(name)
        return values[0] if values else None

    def text(self) -> str:
        """The body, which must be UTF-8."""
        try:
            return (self.request.body or b"").decode()
        except UnicodeDecodeError:
            raise BadRequest("the body must be UTF-8") from None

    def members(self) -> dict[str, Any]:
        """The body, which must be a JSON object."""
        text = self.text()
        if text.count("[") + text.count("{") > MOST_BRACKETS:
            raise BadRequest("the body has too many brackets")
        try:
            body = json.loads(text)
        except ValueError:
            raise BadRequest("the body must be JSON") from None
        if not isinstance(body, dict):
            raise BadRequest("the body must be a JSON object")
        return body


Answer = Callable[[Call], Response]

Routes = Mapping[str, Mapping[str, Answer]]
"""Paths, in which `{name}` stands for any one segment, and what answers each method."""


def respond(routes: Routes, request: Request) -> Response:
    """Has the first route that matches answer."""
    for pattern, methods in routes.items():
        parameters = _match(pattern, request.path)
        if parameters is None:
            continue
        answer = methods.get(request.method)
        if answer is None:
            raise Refusal(
                405,
                "METHOD_NOT_ALLOWED",
                "this path has other methods",
                headers={"allow": ", ".join(methods)},
            )
        return answer(Call(request, parameters))
    raise Refusal(404, "NOT_FOUND", "there is nothing at this path")


def _match(pattern: str, path: str) -> dict[str, str] | None:
    # Split before decoding: `%2F` in a tag is a part of it, not a separator.
    expected, given = pattern.split("/"), path.split("/")
    if len(expected) != len(given):
        return None
    parameters = {}
    for name, segment in zip(expected, given, strict=True):
        if not name.startswith("{"):
            if name != segment:
                return None
        elif segment:
            parameters[name.strip("{}")] = unquote(segment, errors="replace")
        else:
            return None
    return parameters
