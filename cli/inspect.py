"""``cptsel inspect``."""

from typing import Any

from cptsel.cli._common import (
    current_invocation,
    debug_option,
    json_option,
    make_command,
    refuse_beam_args,
    run_and_print,
)
from cptsel.cli._options import HelpArgument
from cptsel.pipeline.summary import Summary


def _callback(directory: str, as_json: bool) -> None:
    """Say what a directory made by cptsel is.

    For an embedding run, a replay manifest (ordered or not) or an export: what is in it, how it was made, and whether
    it is complete; for a run also the first rejected rows, and why they were rejected. Exits with 4 if the directory is
    damaged, as far as names and sizes of files show; verify reads the files.
    """

    def run(_progress: Any) -> Summary:
        from cptsel.pipeline.inspect import inspect

        return inspect(directory)

    invocation = current_invocation()
    refuse_beam_args(invocation)
    run_and_print(run, invocation, as_json)


inspect = make_command(
    name="inspect",
    help=_callback.__doc__,
    callback=_callback,
    parameters=[
        HelpArgument(["directory"], metavar="DIR", explanation="Directory to look at."),
        json_option(),
        debug_option(),
    ],
    example="cptsel inspect replay",
)
