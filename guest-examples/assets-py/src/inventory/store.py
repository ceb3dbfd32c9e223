"""Records with JSON objects as values, and what guards a write.

A function of WIT that gives a `result` raises its error: the exception is
`componentize_py_types.Err`, and what WIT calls the error is its `value`. An `option` that is none
is `None`.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from componentize_py_types import Err
from wit_world.imports import records
from wit_world.imports.types import (
    BulkItem,
    DeleteGuard_None_,
    Entry,
    Error_NotFound,
    Listed,
    ListOptions,
    Page,
    PutGuard,
    PutGuard_Absent,
    PutOptions,
    Written,
)

Value = dict[str, Any]

MOST_ITEMS: Final = 20
"""How many records `bulk-put` writes at once."""


class Namespace:
    """A namespace that only this extension writes to."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find(self, key: str) -> Entry | None:
        """The record, if there is one."""
        try:
            return records.get(self._name, key, None)
        except Err as failure:
            if isinstance(failure.value, Error_NotFound):
                return None
            raise

    def existing(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that have a record, in one call."""
        return {entry.key for entry in records.get_many(self._name, list(keys)) if entry}

    def put(
        self,
        key: str,
        value: Value,
        guard: PutGuard,
        *,
        metadata: Value | None = None,
        ttl_seconds: int | None = None,
    ) -> Written:
        """Writes a record where the guard allows it; a conflict carries the record that is there."""
        options = PutOptions(
            metadata=None if metadata is None else encode(metadata),
            ttl_seconds=ttl_seconds,
            guard=guard,
            schema_version=None,
            return_previous=False,
            return_current=True,
        )
        return records.put(self._name, key, encode(value), options)

    def create_all(self, items: Sequence[tuple[str, Value, Value]]) -> None:
        """Writes records (key, value, metadata) that aren't there yet: all of them or none."""
        records.bulk_put(
            self._name,
            [
                BulkItem(key, encode(value), encode(metadata), None, PutGuard_Absent(), None)
                for key, value, metadata in items
            ],
        )

    def remove(self, key: str) -> bool:
        """Removes a record; false where there was none."""
        return records.delete(self._name, key, DeleteGuard_None_())

    def page(
        self,
        *,
        prefix: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        values: bool = True,
    ) -> Page:
        """A page of records in key order: their values, or else their metadata."""
        options = ListOptions(
            key_prefix=prefix,
            start_key=None,
            end_key=None,
            reverse=False,
            limit=limit,
            cursor=cursor,
            include_values=values,
            include_metadata=not values,
        )
        return records.list(self._name, options)

    def all_metadata(self) -> Iterator[Value]:
        """The metadata of all records. What is written meanwhile may be missed."""
        cursor = None
        while True:
            page = self.page(limit=1000, cursor=cursor, values=False)
            yield from (metadata_of(item) for item in page.items)
            cursor = page.next_cursor
            if cursor is None:
                return


def encode(value: Value) -> str:
    """JSON as storage keeps it: compact. NaN, which JSON doesn't have, is refused."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def value_of(record: Entry | Listed) -> Value:
    """The value of a record, which this extension wrote."""
    value: Value = json.loads(record.value or "{}")
    return value


def metadata_of(record: Listed) -> Value:
    """The metadata of a record, which this extension wrote."""
    metadata: Value = json.loads(record.metadata or "{}")
    return metadata
