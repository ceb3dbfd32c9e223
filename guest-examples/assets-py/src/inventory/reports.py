"""What there is, counted."""

from collections import Counter
from datetime import UTC, datetime

from wit_world.exports.handler import Response

from .answers import json_response
from .device import ASSETS
from .routing import Call


def report(_: Call) -> Response:
    """`GET /report`: devices by client and kind, and those whose warranty has ended.

    A count over all records: good for some thousands. Where there are more, keep the counts in a
    record of their own, written together with what they count.
    """
    today = datetime.now(UTC).date().isoformat()
    clients: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    ended = 0
    for device in ASSETS.all_metadata():
        clients[device.get("client", "")] += 1
        kinds[device.get("kind", "")] += 1
        # Dates are written so that their order as texts is their order in time.
        ended += "" < device.get("warranty", "") < today
    return json_response(
        200,
        {
            "assets": clients.total(),
            "byClient": dict(clients.most_common()),
            "byKind": dict(kinds.most_common()),
            "warrantyEnded": ended,
        },
    )
