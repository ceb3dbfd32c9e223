"""Loans: a device that is lent comes back by itself, as far as the record of it goes."""

from datetime import UTC, datetime
from typing import Final

from wit_world.exports.handler import Response
from wit_world.imports.types import PutGuard_Absent

from .answers import json_response, no_content
from .device import found
from .refusal import BadRequest, Refusal
from .routing import Call
from .store import Namespace, Value, value_of

LOANS: Final = Namespace("loans")

MOST_DAYS: Final = 30
"""As long as storage keeps a record that expires."""

SECONDS_OF_A_DAY: Final = 24 * 60 * 60


def lend(call: Call) -> Response:
    """`PUT /assets/{tag}/loan`: lends a device for some days; 409 where it is lent."""
    tag, body = call.parameters["tag"], call.members()
    to, days = body.get("to"), body.get("days")
    if not isinstance(to, str) or not to:
        raise BadRequest("to must be a text")
    # `True` is a number in Python, and not one of days.
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= MOST_DAYS:
        raise BadRequest(f"days must be a whole number from 1 to {MOST_DAYS}")
    found(tag)
    loan = {"to": to, "since": datetime.now(UTC).isoformat(timespec="milliseconds")}
    # What is expired counts as absent, so a loan that is over is in nobody's way.
    written = LOANS.put(tag, loan, PutGuard_Absent(), ttl_seconds=days * SECONDS_OF_A_DAY)
    return json_response(201, _shown(loan, written.expires_at))


def take_back(call: Call) -> Response:
    """`DELETE /assets/{tag}/loan`"""
    if not LOANS.remove(call.parameters["tag"]):
        raise Refusal(404, "NOT_FOUND", "this device isn't lent")
    return no_content()


def current(tag: str) -> Value | None:
    """The loan of a device, if it is lent."""
    entry = LOANS.find(tag)
    return _shown(value_of(entry), entry.expires_at) if entry else None


def _shown(loan: Value, expires_at: int | None) -> Value:
    until = None if expires_at is None else datetime.fromtimestamp(expires_at / 1000, UTC)
    return loan | {"until": until and until.isoformat(timespec="milliseconds")}
