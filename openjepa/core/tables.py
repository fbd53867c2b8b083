"""Print tables: with a frame on a terminal, one full row per line elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Column, Table

from openjepa.core.console import console, draw_safely, print_line
from openjepa.core.names import printable

Cell = str | Sequence[str]  # a sequence: lines on a terminal, further columns elsewhere

FIRST_WIDTH = 24  # characters that the first column gets before it is wrapped


def print_table(head: Sequence[str], rows: Iterable[Sequence[Cell]], title: str = "") -> None:
    """Print a table; in a pipe or a file its cells are separated by tabs and nothing is cut.

    Cells are shown as they are: no sign in them means anything.
    """
    draw_safely(title or "a table", lambda: print_cells(head, list(rows), title))


def print_cells(head: Sequence[str], rows: Sequence[Sequence[Cell]], title: str) -> None:
    """Print a framed table on a terminal or in a notebook, else lines."""
    if console.is_terminal or console.is_jupyter:
        console.print(framed_table(head, rows, title))
        return
    lines = [head, *([part for cell in row for part in lines_of(cell)] for row in rows)]
    text = "\n".join("\t".join(printable(each) for each in line) for line in lines)
    print_line(f"{printable(title)}\n{text}" if title else text)


def framed_table(head: Sequence[str], rows: Sequence[Sequence[Cell]], title: str) -> Table:
    """Return a table for rich; cells that are too long are broken over lines."""
    cells = [["\n".join(map(printable, lines_of(cell))) for cell in row] for row in rows]
    longest = max((len(line) for row in cells for line in row[0].splitlines()), default=0)
    columns = [Column(printable(each), overflow="fold") for each in head]
    columns[0].min_width = min(max(longest, len(head[0])), FIRST_WIDTH)
    table = Table(*columns, title=printable(title) or None)
    for row in cells:
        table.add_row(*row)
    return table


def lines_of(cell: Cell) -> Sequence[str]:
    """Return the lines of a cell."""
    return [cell] if isinstance(cell, str) else cell
