"""An extension that keeps the devices of an IT service company's clients.

A request comes in through `Handler.handle`. `inventory.routes` finds what it asks for;
`inventory.assets`, `imports`, `loans` and `reports` do it with the help of `inventory.store`;
`inventory.answers` turns what came out, also every failure, into a response.
"""

from wit_world import exports
from wit_world.exports.handler import Request, Response

from inventory import answers
from inventory.routes import ROUTES
from inventory.routing import respond


class Handler(exports.Handler):
    """What the world in `wit/` wants exported; componentize-py finds it by its name."""

    def handle(self, request: Request) -> Response:
        """Runs in a fresh instance for every request: whatever has to last goes into storage."""
        try:
            return respond(ROUTES, request)
        # Nothing may leave `handle`: the host would answer 502, and nobody would know why.
        except Exception as failure:  # noqa: BLE001
            return answers.failed(failure)
