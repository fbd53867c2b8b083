"""Read tables of labels: .csv, .tsv, .json, .jsonl and .parquet files, whatever their encoding and delimiter."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from openjepa.core.errors import UserError
from openjepa.data.parquet import require_pyarrow, with_readable_errors

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"})

MAX_TABLE_BYTES = 2**29

DELIMITERS = (",", ";", "\t", "|", " ")


class Table(NamedTuple):
    """The columns of a table as text, by name; all have the same length."""

    file: Path
    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(file: Path) -> Table:
    """Read a table. Raises UserError if it does not exist, is too large, or has an unknown layout."""
    if not file.is_file():
        raise UserError(f"{file} does not exist: give a table of labels as --data.labels FILE")
    if file.stat().st_size > MAX_TABLE_BYTES:
        raise UserError(f"{file} is larger than {MAX_TABLE_BYTES // 2**20} MiB: give a table of file names and labels")
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        rows = read_parquet_rows(file)
    elif suffix in (".json", ".jsonl", ".ndjson"):
        rows = read_json_rows(file, suffix)
    else:
        return Table(file, read_csv_columns(file))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(file, {name: [to_text(row.get(name)) for row in rows] for name in names})


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8 or UTF-16 with its byte-order mark removed, or else in Windows' encoding."""
    content = file.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def read_csv_columns(file: Path) -> dict[str, list[str]]:
    """Read columns of delimited text with a header line.

    Raises:
        UserError: there are no rows, or a line has more cells than the header.
    """
    text = read_text(file)
    first = text.lstrip("\n").partition("\n")[0]
    delimiter = max(DELIMITERS, key=lambda each: (first.count(each), -DELIMITERS.index(each)))
    try:
        lines = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{file} is not a table with a header line ({error}): save it as plain .csv") from error
    if len(lines) < 2:
        raise UserError(f"{file} has no rows below its header line: give a table of file names and labels")
    header = [name.strip() or f"column {number}" for number, name in enumerate(lines[0], 1)]
    if wide := next((number for number, row in enumerate(lines[1:], 2) if len(row) > len(header)), 0):
        raise UserError(f"row {wide} of {file} has more cells than the header line ({', '.join(header)}): repair it")
    rows = [[*row, *[""] * (len(header) - len(row))] for row in lines[1:]]
    return {name: [row[column].strip() for row in rows] for column, name in enumerate(header)}


def read_json_rows(file: Path, suffix: str) -> list[dict[str, Any]]:
    """Read rows from JSON: a list of objects, an object of columns, or an object of file name and label."""
    text = read_text(file)
    try:
        if suffix != ".json":
            content: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not valid JSON ({error}): repair it, or give a .csv") from error
    rows = rows_of_json(content)
    if not rows:
        raise UserError(f"{file} is not a list of objects, nor an object of file names and labels: give a .csv")
    return rows


def rows_of_json(content: Any) -> list[dict[str, Any]]:
    """Return the rows of one of the known layouts; empty for others."""
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return content
    if not isinstance(content, dict):
        return []
    values = list(content.values())
    if values and all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        return [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
    if values and all(isinstance(value, dict) for value in values):
        return [{"file": name, **value} for name, value in content.items()]
    if values and all(isinstance(value, str | int | float) for value in values):
        return [{"file": name, "label": value} for name, value in content.items()]
    return []


def read_parquet_rows(file: Path) -> list[dict[str, Any]]:
    """Read the columns of a Parquet file that hold no bytes."""
    arrow = require_pyarrow()

    def read() -> Any:
        stored = arrow.parquet.ParquetFile(str(file))
        plain = [field.name for field in stored.schema_arrow if not holds_bytes(arrow.types, field.type)]
        return stored.read(columns=plain).to_pylist()

    return with_readable_errors(str(file), read)


def holds_bytes(types: Any, kind: Any) -> bool:
    """Return whether a column's type is bytes, or nested."""
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_nested(kind)


def to_text(value: Any) -> str:
    """Return a cell as text: whole numbers without a fraction, empty for missing values."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
