"""Devices: found by the beginning of their tag, changed whoever else does so at the same time."""

from typing import Final

from componentize_py_types import Err
from wit_world.exports.handler import Response
from wit_world.imports.types import Error_RevisionMismatch, PutGuard_Revision

from . import loans
from .answers import etag, json_response, no_content
from .device import ASSETS, checked, found, summary
from .refusal import BadRequest, Refusal
from .routing import Call
from .store import value_of

ATTEMPTS: Final = 5
"""How often a change is tried, before it is left to the caller."""


def search(call: Call) -> Response:
    """`GET /assets`: a page of the devices whose tags start with `prefix`."""
    limit = call.query("limit")
    if limit is not None and not (limit.isdecimal() and len(limit) < 5):
        raise BadRequest("limit must be a number")
    page = ASSETS.page(
        prefix=call.query("prefix"),
        limit=None if limit is None else int(limit),
        cursor=call.query("cursor"),
    )
    items = [{"tag": item.key, "asset": value_of(item)} for item in page.items]
    return json_response(200, {"items": items, "nextCursor": page.next_cursor})


def read(call: Call) -> Response:
    """`GET /assets/{tag}`: a device, and to whom it is lent."""
    tag = call.parameters["tag"]
    entry = found(tag)
    body = {"tag": tag, "asset": value_of(entry), "loan": loans.current(tag)}
    return json_response(200, body, etag(entry.revision))


def change(call: Call) -> Response:
    """`PATCH /assets/{tag}`: changes the fields that are given, and no others.

    There is no lock to take. The write is guarded by the revision that was read; where another
    write came between, nothing happens and the conflict brings the record as it is now, so that
    the next attempt needn't read again.
    """
    changes = checked(call.members())
    entry = found(call.parameters["tag"])
    for attempt in range(1, ATTEMPTS + 1):
        value = value_of(entry) | changes
        try:
            guard = PutGuard_Revision(entry.revision)
            written = ASSETS.put(entry.key, value, guard, metadata=summary(value))
            return json_response(200, {"tag": entry.key, "asset": value}, etag(written.revision))
        except Err as failure:
            match failure.value:
                case Error_RevisionMismatch(conflict) if conflict.current and attempt < ATTEMPTS:
                    entry = conflict.current
                case _:
                    raise
    raise AssertionError("the last attempt answers or raises")


def remove(call: Call) -> Response:
    """`DELETE /assets/{tag}`"""
    if not ASSETS.remove(call.parameters["tag"]):
        raise Refusal(404, "NOT_FOUND", "there is no such device")
    return no_content()
