"""Read recordings from CSV files: columns of numbers are channels, rows are samples.   C channels  L samples"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from openjepa.core.errors import UserError

BLANK = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})  # cells without a value, in lower case

TIME = re.compile(r"(\d{4})[-/](\d\d)[-/](\d\d)(?:[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?))?(?:Z|[+-]\d\d:?\d\d)?")


class Table(NamedTuple):
    """The channels of a CSV file and the time of each row."""

    names: tuple[str, ...]
    values: Float[np.ndarray, "C L"]  # not a number where a cell is blank
    times: np.ndarray | None  # datetime64 of each row, as on the clock of the place; None without a time column


class Column(NamedTuple):
    """A column of cells as they stand in the file."""

    file: str
    name: str
    cells: tuple[str, ...]
    lines: tuple[int, ...]  # line of the file that each cell is in, counted from 1

    def first(self) -> str:
        """Return the first cell that is not blank, or an empty string."""
        return next((cell for cell in self.cells if not is_blank(cell)), "")

    def values(self) -> Float[np.ndarray, "L"]:
        """Return the values, not a number for blank cells. Raises UserError for a cell that is not a number."""
        try:
            return np.array(self.cells).astype(np.float64)
        except ValueError:
            return np.array([self.number(row) for row in range(len(self.cells))])

    def number(self, row: int) -> float:
        cell = self.cells[row]
        if is_blank(cell):
            return np.nan
        if not is_number(cell):
            raise UserError(
                f"{self.file}, line {self.lines[row]}, column {self.name}: {cell!r} is not a number: correct it, leave "
                "it blank, or choose other columns with --data.columns"
            )
        return float(cell)

    def times(self) -> np.ndarray:
        """Return the dates as datetime64, time zones dropped. Raises UserError for a cell that is not a date."""
        dates = []
        for cell, line in zip(self.cells, self.lines, strict=True):
            match = TIME.fullmatch(cell.strip())
            try:
                year, month, day, clock = match.groups() if match else ("", "", "", None)
                dates.append(np.datetime64(f"{year}-{month}-{day}T{clock or '00:00'}", "us"))
            except ValueError as error:
                raise UserError(
                    f"{self.file}, line {line}, column {self.name}: {cell!r} is not a date: "
                    "write it like 2016-07-01 13:00:00"
                ) from error
        return np.array(dates, "datetime64[us]")


def read_table(file: str, columns: tuple[str, ...] = ()) -> Table:
    """Read the named columns, or all columns of numbers that have a name, and the first column of dates.

    Dates are years, months and days as in 2016-07-01, with or without a time. Other text columns are left out.

    Raises:
        UserError: the file is not such a table, or lacks a named column.
    """
    table = read_columns(file)
    if missing := [name for name in columns if name not in table]:
        raise UserError(f"{file} has no column {missing[0]!r}: choose --data.columns from {', '.join(table)}")
    names = columns or tuple(name for name in table if name and is_number(table[name].first()))
    if not names:
        raise UserError(f"{file} has no column of numbers: its columns are {', '.join(table)}")
    values = np.stack([table[name].values() for name in names]).astype(np.float32)
    dated = [column for name, column in table.items() if name not in names and TIME.fullmatch(column.first().strip())]
    return Table(names, values, dated[0].times() if dated else None)


def read_columns(file: str) -> dict[str, Column]:
    """Return the columns of a CSV file by the names in its header line. Raises UserError if the lines do not fit."""
    rows, lines = read_rows(file)
    header = [name.strip() for name in rows[0]]
    if all(is_number(name) for name in header):
        raise UserError(f"{file}, line 1 has numbers in place of column names: put a line such as time,value on top")
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise UserError(f"{file}, line 1 has no commas: separate columns by commas, and write decimals with a point")
    if repeated := next((name for number, name in enumerate(header) if name in header[:number]), None):
        raise UserError(f"{file}, line 1 names column {repeated!r} twice: give every column its own name")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise UserError(f"{file}, line {line} has {len(row)} cells, but the header has {len(header)}: correct it")
    cells = list(zip(*rows[1:], strict=True))
    return {name: Column(file, name, cells[number], lines[1:]) for number, name in enumerate(header)}


def read_rows(file: str) -> tuple[list[list[str]], tuple[int, ...]]:
    """Return the lines that are not empty, split at commas, and their line numbers, counted from 1."""
    rows, lines = [], []
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file}, after line {lines[-1] if lines else 0}: not a CSV file in UTF-8 ({error})") from error
    if len(rows) < 2:
        raise UserError(f"{file} has no samples: it needs a header line and a line for each sample")
    return rows, tuple(lines)


def is_blank(cell: str) -> bool:
    return cell.strip().lower() in BLANK


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
