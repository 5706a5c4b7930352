"""Rows of a table by a key, in about as much memory as their text has: dictionaries would take ten times as much."""

import array
import json
from collections.abc import Iterator, Mapping
from typing import Any


class PackedRows:
    """Rows (JSON objects) in the order they were added, found again by the key they were added under."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array.array("Q")
        self._of: dict[str, array.array[int]] = {}

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Adds a row of values that JSON can hold."""
        self._bytes += json.dumps(row, separators=(",", ":")).encode()  # names of any bytes survive, escaped
        self._of.setdefault(key, array.array("Q")).append(len(self._ends))
        self._ends.append(len(self._bytes))

    def of(self, key: str) -> list[dict[str, Any]]:
        """The rows of a key, none if it has none."""
        return [self._row(number) for number in self._of.get(key, ())]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._row, range(len(self._ends)))

    def _row(self, number: int) -> dict[str, Any]:
        begin = self._ends[number - 1] if number else 0
        return json.loads(self._bytes[begin : self._ends[number]])
