"""Every endpoint there is, as `bundle/manifest.json` lists them."""

from wit_world.exports.handler import Response
from wit_world.imports import context

from . import assets, imports, loans, reports
from .answers import json_response
from .routing import Call, Routes


def about(_: Call) -> Response:
    """`GET /`: whom this is."""
    invocation = context.get_invocation()
    return json_response(
        200,
        {
            "company": context.get_config("company") or "your company",
            "extension": invocation.extension,
            "version": invocation.version,
            "tenant": invocation.tenant_id,
        },
    )


ROUTES: Routes = {
    "/": {"GET": about},
    "/imports": {"POST": imports.import_assets},
    "/assets": {"GET": assets.search},
    "/assets/{tag}": {"GET": assets.read, "PATCH": assets.change, "DELETE": assets.remove},
    "/assets/{tag}/loan": {"PUT": loans.lend, "DELETE": loans.take_back},
    "/report": {"GET": reports.report},
}
