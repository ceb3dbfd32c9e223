"""A device: what is kept of it, and where."""

import re
from typing import Any, Final

from wit_world.imports.types import Entry

from .refusal import BadRequest, Refusal
from .store import Namespace, Value

ASSETS: Final = Namespace("assets")

FIELDS: Final = ("client", "kind", "model", "warranty")
"""All of it text; `warranty` is the last day, such as 2027-12-31."""


def found(tag: str) -> Entry:
    """The device, which must be there."""
    entry = ASSETS.find(tag)
    if entry is None:
        raise Refusal(404, "NOT_FOUND", "there is no such device")
    return entry


def ensure_tag(tag: str) -> None:
    """Refuses what is no tag. Storage would too, but a list of keys with a bad one as a whole."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", tag):
        raise BadRequest("a tag is 1 to 64 letters, digits, dots, underscores or hyphens")


def checked(fields: dict[str, Any]) -> Value:
    """The fields of a device, if they are known ones and texts."""
    for name, value in fields.items():
        if name not in FIELDS:
            raise BadRequest(f"a device has {', '.join(FIELDS)}")
        if not isinstance(value, str) or not value:
            raise BadRequest(f"{name} must be a text")
    return fields


def summary(value: Value) -> Value:
    """What the report needs. As metadata it is listed without reading the values."""
    return {name: value[name] for name in ("client", "kind", "warranty") if name in value}
