"""What the commands print: progress and logs on stderr, the summary on stdout."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table as RichTable
from rich.text import Text

from cptsel.cli._visible import visible, visible_json
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.summary import Summary, Table

LOG_INTERVAL = 30.0  # seconds between lines of progress where stderr is no terminal
_PLAIN_WIDTH = 10_000  # characters of a line where stdout is no terminal: tables are as wide as they need to be
_PLAIN_CELL = 100  # characters of a line of a cell there, beyond which texts go on in the next one; words stay whole

_log = logging.getLogger("cptsel")


@contextmanager
def progress(debug: bool = False) -> Iterator[Progress]:
    """Set up logging and yield a function ``(done, total, what, detail)`` that shows how far a pass is.

    A bar on stderr where that is a terminal, else a log line at most every ``LOG_INTERVAL`` seconds and one when a
    step ends.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # theirs would fight with ours for the line
    console = Console(stderr=True)
    if not console.is_terminal:
        set_up_logging(_plain_handler(), debug)
        yield log_progress()
        return
    set_up_logging(RichHandler(console=console, show_path=False, show_time=False), debug)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(done: int, total: int | None, what: str, detail: str = "", /) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(visible(what), total=total)
            shown = visible(f"{what} ({detail})" if detail else what)
            bar.update(tasks[what], completed=done, total=total, description=shown)

        yield report


def log_progress(clock: Callable[[], float] = time.monotonic) -> Progress:
    """Progress as log lines.

    Args:
        clock: seconds from any fixed point.
    """
    last: dict[str, float] = {}
    finished: set[str] = set()

    def report(done: int, total: int | None, what: str, detail: str = "", /) -> None:
        now, ended = clock(), total is not None and done >= total
        if what in finished or not (ended or now - last.get(what, -LOG_INTERVAL) >= LOG_INTERVAL):
            return
        last[what] = now
        if ended:
            finished.add(what)
        counted = f"{done:,} of {total:,}" if total is not None else f"{done:,}"
        _log.info("%s: %s", what, f"{counted}; {detail}" if detail else counted)

    return report


# Lines that are logged as warnings and warn of nothing: Beam without its Google Cloud extra; workers that are
# processes of this machine, of which Beam expects neither a directory of their own nor to be started by us.
_NOISE = (
    "apitools not found",
    "No semi_persistent_directory found",
    "If direct_num_workers is not equal to 1",
    "Resource module is not available",  # Beam's way of saying that scipy is not installed
)


def _no_noise(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _NOISE)


def _no_traceback(record: logging.LogRecord) -> bool:
    """Beam logs the traceback of an error and then raises it; the error is reported once, by ``main``."""
    traced = record.exc_info is not None or "Traceback (most recent call last)" in record.getMessage()
    return not (traced and record.name.startswith("apache_beam"))


def _make_visible(record: logging.LogRecord) -> bool:
    """Escape what a terminal would act on; other libraries may log several lines."""
    keep = "" if record.name.split(".")[0] == _log.name else "\n\t"
    record.msg, record.args = visible(record.getMessage(), keep), ()
    return True


def set_up_logging(handler: logging.Handler, debug: bool) -> None:
    """Warnings of all, information of our own; with ``debug`` everything of our own."""
    handler.addFilter(_no_noise)
    handler.addFilter(_make_visible)
    if not debug:
        handler.addFilter(_no_traceback)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    _log.setLevel(logging.DEBUG if debug else logging.INFO)


def _plain_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
    return handler


def print_summary(summary: Summary, as_json: bool) -> None:
    """Print what a pass returned: tables on stdout, or one JSON object; warnings always on stderr too."""
    for warning in summary.warnings:
        _log.warning("%s", warning)
    if as_json:
        print(visible_json(json.dumps(summary.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    console.print(Text(visible(f"cptsel {summary.command}: {summary.status}"), style="bold"))
    totals = {**summary.totals, **({"out": summary.out} if summary.out else {})}
    totals = {visible(name): value for name, value in totals.items()}
    width = max(map(len, totals), default=0)
    for name, value in totals.items():
        console.print(Text(f"  {name:<{width}}  ").append_text(_cell(value)), soft_wrap=True)
    for table in summary.tables:
        console.print()
        console.print(_table(table, console.is_terminal))


def _table(spec: Table, fits: bool) -> RichTable:
    """One of a summary's tables; columns of numbers stand to the right.

    Args:
        spec: the table.
        fits: it is fitted into a terminal; else texts are folded between words alone, so that paths stay whole.
    """
    table = RichTable(
        title=Text(visible(spec.title)), title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False
    )
    for index, name in enumerate(spec.columns):
        numbers = all(isinstance(row[index], int | float) or row[index] is None for row in spec.rows)
        justify: JustifyMethod = "right" if numbers and spec.rows else "left"
        most = None if fits else _width(row[index] for row in spec.rows)
        table.add_column(Text(visible(name)), justify=justify, overflow="fold", max_width=most)
    for row in spec.rows:
        table.add_row(*[_cell(value) for value in row])
    return table


def _width(values: Iterable[Any]) -> int:
    """Characters of the widest line of a column where stdout is no terminal.

    Words end at line ends and tabs too, though these are printed as escapes. Scripts that have no spaces between words,
    whose characters are two columns wide, are folded anywhere.
    """
    words = (visible(word) for value in values if isinstance(value, str) for word in value.split())
    return max([_PLAIN_CELL, *(len(word) for word in words if cell_len(word) == len(word))])


def _cell(value: Any) -> Text:
    """A value as text: never taken for markup; thousands apart, four significant digits."""
    if value is None:
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.4g}")
    return Text(visible(str(value)), overflow="fold")
