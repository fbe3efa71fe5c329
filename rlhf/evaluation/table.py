"""Rows of strings and numbers as a fixed-width table and as a Markdown table."""

from collections.abc import Sequence

from rlhf.printable import escaped_markdown, one_line

Cell = str | int | float | None


def text_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, digits: int = 3) -> str:
    """Return an aligned table for a terminal; columns of numbers are right-aligned."""
    lines = [[one_line(name) for name in header], *_rendered(header, rows, digits)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    to_right = _number_columns(header, rows)
    return "\n".join(
        "  ".join(
            _padded(cell, width, right) for cell, width, right in zip(line, widths, to_right, strict=True)
        ).rstrip()
        for line in [lines[0], ["-" * width for width in widths], *lines[1:]]
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, digits: int = 3) -> str:
    """Return a Markdown table; a cell is shown as it is: it cannot break the table, and holds no HTML and no link."""
    names = [escaped_markdown(one_line(name)) for name in header]
    body = [[escaped_markdown(cell) for cell in line] for line in _rendered(header, rows, digits)]
    ruler = ["---:" if right else "---" for right in _number_columns(header, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [names, ruler, *body])


def _rendered(header: Sequence[str], rows: Sequence[Sequence[Cell]], digits: int) -> list[list[str]]:
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"row {index} has {len(row)} cells, the header {len(header)}")
    return [[_cell(value, digits) for value in row] for row in rows]


def _cell(value: Cell, digits: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return one_line(str(value))


def _number_columns(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[bool]:
    return [
        bool(rows) and all(row[column] is None or isinstance(row[column], int | float) for row in rows)
        for column in range(len(header))
    ]


def _padded(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)
