"""What every pass returns and its command prints: one shape for all."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_ROWS_SHOWN = 20


@dataclass(frozen=True, repr=False)
class Table:
    """A table of a summary.

    Attributes:
        title: what it is of.
        columns: their names.
        rows: a value a column each, None where there is none.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def records(self) -> list[dict[str, Any]]:
        """The rows as mappings by column, such as ``pandas.DataFrame`` and ``pyarrow.Table.from_pylist`` take."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def __repr__(self) -> str:
        shown = [list(self.columns), *([plain(value) for value in row] for row in self.rows[:_ROWS_SHOWN])]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]
        return "\n".join([self.title, *(f"  {line}" for line in lines), *_more(len(self.rows))])

    def _repr_html_(self) -> str:
        """The same as HTML, for notebooks; every value is escaped."""
        rest = "".join(f"<p>{line.strip()}</p>" for line in _more(len(self.rows)))
        return f"<p>{escaped(self.title)}</p>" + html_table(self.columns, self.rows[:_ROWS_SHOWN]) + rest


@dataclass(frozen=True, kw_only=True, repr=False)
class Summary:
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
    totals: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    warnings: Sequence[str] = ()

    def table(self, title: str) -> Table:
        """The first table whose title begins so. Raises KeyError where there is none."""
        for table in self.tables:
            if table.title.startswith(title):
                return table
        raise KeyError(f"{self.command} has no table {title!r}, but {[table.title for table in self.tables]}")

    def as_dict(self) -> dict[str, Any]:
        """The same as values of JSON, as ``--json`` prints them."""
        tables = [
            {"title": t.title, "columns": list(t.columns), "rows": [list(r) for r in t.rows]} for t in self.tables
        ]
        head = {"command": self.command, "out": self.out, "status": self.status}
        return {**head, "totals": dict(self.totals), "tables": tables, "warnings": list(self.warnings)}

    def _facts(self) -> dict[str, Any]:
        return {**self.totals, **({"out": self.out} if self.out else {})}

    def __repr__(self) -> str:
        facts = [f"  {plain(name)}: {plain(value)}" for name, value in self._facts().items()]
        parts = ["\n".join([f"cptsel {self.command}: {self.status}", *facts])]
        parts += [f"warning: {plain(sentence)}" for sentence in self.warnings]
        return "\n".join([*parts, *map(repr, self.tables)])

    def _repr_html_(self) -> str:
        """The same as HTML, for notebooks; every value is escaped."""
        parts = [f"<p><strong>{escaped(f'cptsel {self.command}: {self.status}')}</strong></p>"]
        parts.append(html_table([], list(self._facts().items())))
        parts += [f"<p>warning: {escaped(sentence)}</p>" for sentence in self.warnings]
        return "".join([*parts, *(table._repr_html_() for table in self.tables)])


def first_rows(title: str, columns: list[str], rows: list[list[Any]], most: int, count: int | None = None) -> Table:
    """A table of at most ``most`` of the rows; the title says if there are more, or ``count``, of which these are."""
    count = len(rows) if count is None else count
    if count > most:
        title = f"{title} (first {most} of {count:,})"
    return Table(title=title, columns=columns, rows=rows[:most])


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2,000 files``: a number with its noun, which takes an s in the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def named(name: str) -> str:
    """A name as it is, or in quotes where nothing of it would be seen."""
    return name if name.strip() else f'"{name}"'


def plain(value: Any) -> str:
    """A value in words, without control characters of names."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.6g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def escaped(value: Any) -> str:
    """A value in words, as HTML."""
    return html.escape(plain(value))


def html_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as a table of HTML, whose values are escaped; without ``columns`` it has no head."""
    head = "".join(f"<th>{escaped(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escaped(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def _more(rows: int) -> list[str]:
    return [f"  and {rows - _ROWS_SHOWN:,} more"] if rows > _ROWS_SHOWN else []
