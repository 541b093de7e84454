"""What every pass returns and its command prints: one shape for all."""

from typing import Any, TypedDict


class Table(TypedDict):
    """A table of a summary: rows have a value a column, None where there is none."""

    title: str
    columns: list[str]
    rows: list[list[Any]]


class Summary(TypedDict):
    """What a pass did.

    Attributes:
        command: its name.
        out: the directory that it wrote or looked at, None where there is no one such.
        status: one or two words.
        totals: figures by name, in the order in which they are printed.
        tables: what goes below them.
        warnings: sentences.
    """

    command: str
    out: str | None
    status: str
    totals: dict[str, Any]
    tables: list[Table]
    warnings: list[str]


def first_rows(title: str, columns: list[str], rows: list[list[Any]], most: int) -> Table:
    """A table of at most ``most`` of the rows; the title says if there are more."""
    if len(rows) > most:
        title = f"{title} (first {most} of {len(rows):,})"
    return Table(title=title, columns=columns, rows=rows[:most])
