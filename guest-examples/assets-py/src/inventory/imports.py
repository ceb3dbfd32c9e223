"""Import of many devices from a table."""

import csv
from typing import Final

from componentize_py_types import Err
from wit_world.exports.handler import Response
from wit_world.imports import logging
from wit_world.imports.types import BulkError

from .answers import code_of, json_response
from .device import ASSETS, FIELDS, checked, ensure_tag, summary
from .refusal import BadRequest, Refusal
from .routing import Call
from .store import MOST_ITEMS, Value

MOST_ROWS: Final = 200
"""Half of the writes that an install may do at once, for it may want to do something else too."""

Row = tuple[str, Value]


def import_assets(call: Call) -> Response:
    """`POST /imports`: creates a device for each row of a CSV table with a line of names.

    A row that is wrong, or whose device is there already, is refused and told; the others are
    created, in groups that are written as a whole.
    """
    rows, refused = _parse(call.text())
    imported = 0
    for start in range(0, len(rows), MOST_ITEMS):
        imported += _create(rows[start : start + MOST_ITEMS], refused)
    logging.log(logging.Level.INFO, f"imported {imported} devices, refused {len(refused)}")
    return json_response(200, {"imported": imported, "refused": refused})


def _parse(text: str) -> tuple[list[Row], dict[str, str]]:
    """The rows by their tags, and why others are refused."""
    table = csv.DictReader(text.splitlines(), strict=True)
    if table.fieldnames is None or set(table.fieldnames) != {"tag", *FIELDS}:
        raise BadRequest(f"the first line must be tag,{','.join(FIELDS)}")
    rows: dict[str, Value] = {}
    refused: dict[str, str] = {}
    try:
        for number, row in enumerate(table, start=2):
            if number > MOST_ROWS + 1:
                raise BadRequest(f"a table has at most {MOST_ROWS} rows")
            tag = row.pop("tag") or f"line {number}"
            try:
                ensure_tag(tag)
                fields = checked({name: value for name, value in row.items() if value != ""})
            except Refusal as refusal:
                refused[tag] = refusal.code
                continue
            if tag in rows:
                refused[tag] = "DUPLICATE"
            rows.setdefault(tag, fields)
    except csv.Error as error:
        raise BadRequest(f"the table can't be read: {error}") from None
    return list(rows.items()), refused


def _create(group: list[Row], refused: dict[str, str]) -> int:
    """Creates the devices of a group that can be created; gives how many."""
    there = ASSETS.existing([tag for tag, _ in group])
    refused.update((tag, "EXISTS") for tag in there)
    group = [row for row in group if row[0] not in there]
    while group:
        try:
            ASSETS.create_all([(tag, fields, summary(fields)) for tag, fields in group])
            break
        except Err as failure:
            match failure.value:
                # All or none, so the others are tried again without it.
                case BulkError(item, error) if item is not None:
                    refused[item.key] = code_of(error)
                    del group[item.index]
                case _:
                    raise
    return len(group)
