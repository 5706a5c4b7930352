"""Tables as data sets come with: CSV, TSV, JSON lines; with or without a byte order mark, of any line ends, checked row
by row."""

import csv
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.report import Report
from data.sources.files import shown
from medp_clip_jax.errors import InputError

Row = Mapping[str, Any]
JSON_LINES = (".jsonl", ".ndjson")
_LARGEST_CELL = 1 << 24  # characters; the csv module's own limit is shorter than some captions


def read_table(
    path: pathlib.Path, report: Report, columns: Sequence[str] = (), encoding: str = "", delimiter: str = ""
) -> Iterator[tuple[str, Row]]:
    """Yields (file:line, row) for each row of a .csv, .tsv, .txt (tabs) or .jsonl file; `columns` names those of a file
    without a header line.

    Rows that cannot be read are reported and left out. InputError if the file cannot be opened, or has no header.
    """
    if path.suffix.lower() in JSON_LINES:
        yield from _json_lines(path, report, encoding)
        return
    csv.field_size_limit(_LARGEST_CELL)
    delimiter = delimiter or ("," if path.suffix.lower() == ".csv" else "\t")
    quoting = csv.QUOTE_NONE if path.suffix.lower() == ".txt" else csv.QUOTE_MINIMAL  # plain text has stray quotes
    with open_text(path, encoding) as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting)
        header = list(columns) or [name.strip() for name in next(reader, [])]
        if not any(header):
            raise InputError(f"{shown(path)}: has no header line: name its columns in the first line")
        while True:
            place = f"{shown(path)}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                report.skip(place, "unreadable row", f"{error}; correct the line")
                continue
            if any(cells) and (row := _checked(place, dict(zip(header, cells, strict=False)), report)) is not None:
                yield place, row


def read_json(path: pathlib.Path, encoding: str = "") -> Any:
    """The content of a JSON file; InputError if it is not one."""
    try:
        data = path.read_bytes()
        return json.loads(data.decode(encoding) if encoding else data.removeprefix(b"\xef\xbb\xbf"))
    except (OSError, ValueError, LookupError, RecursionError) as error:
        detail = " ".join(str(error).split())
        hint = f"; {_HINT}" if isinstance(error, UnicodeDecodeError) else ""
        raise InputError(f"{shown(path)}: not readable as JSON ({detail}): repair it{hint}") from error


def stream_json(path: pathlib.Path, prefix: str, pairs: bool = False) -> Iterator[Any]:
    """The values at `prefix` of a JSON file too large for memory, one after the other, or with `pairs` the keys and
    values of the object there; prefixes as of ijson ("training.item"). InputError if the file cannot be read."""
    try:
        import ijson
    except ImportError as error:
        raise InputError(f'{shown(path)}: needs ijson: pip install "medp-clip-jax[corpora]"') from error
    try:
        with path.open("rb") as file:
            yield from (ijson.kvitems if pairs else ijson.items)(file, prefix, use_float=True)
    except (OSError, ijson.JSONError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{shown(path)}: not readable as JSON ({detail}): take the original file") from error


def open_text(path: pathlib.Path, encoding: str = "") -> Any:
    """Opens a text file as UTF-8 (with or without its mark) unless `encoding` says otherwise; bytes that do not fit
    stay visible as surrogates, so that single rows can be told. InputError if it cannot be opened."""
    try:
        return path.open(encoding=encoding or "utf-8-sig", errors="surrogateescape", newline="")
    except (OSError, LookupError) as error:
        raise InputError(f"{shown(path)}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def column(row: Row, names: Sequence[str], path: pathlib.Path, what: str) -> str:
    """The name of the column of a row that is called one of `names`, whatever its case and punctuation; InputError
    naming the columns there are."""
    found = find_column(row, names)
    if found is None:
        raise InputError(f"{shown(path)}: no column for {what}: expected {' or '.join(names)}, found {', '.join(row)}")
    return found


def find_column(row: Row, names: Sequence[str]) -> str | None:
    """As `column`; None where there is none."""
    plain = {re.sub(r"[\W_]+", "", str(key).lower()): key for key in reversed(row)}
    return next((plain[key] for name in names if (key := re.sub(r"[\W_]+", "", name.lower())) in plain), None)


def cell(row: Row, key: str | None) -> str:
    """The text of a cell, stripped; "" where there is none."""
    value = row.get(key) if key else None
    return "" if value is None else str(value).strip()


def _json_lines(path: pathlib.Path, report: Report, encoding: str) -> Iterator[tuple[str, Row]]:
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, 1):
            place = f"{shown(path)}:{number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                report.skip(place, "not JSON", f"{error}; each line is one JSON object")
                continue
            if not isinstance(row, dict):
                report.skip(place, "not JSON", "each line is one JSON object")
            elif (checked := _checked(place, row, report)) is not None:
                yield place, checked


_HINT = "convert the file, or name its encoding by --option=encoding=cp1252 or the like"


def _checked(place: str, row: Row, report: Report) -> Row | None:
    """The row, if all its text can be stored; a guess at another encoding could change names and captions unseen."""
    try:
        "".join(value for value in row.values() if isinstance(value, str)).encode()
    except UnicodeEncodeError:
        report.skip(place, "not UTF-8", _HINT)
        return None
    return row
