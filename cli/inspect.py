"""``cptsel inspect``."""

from cptsel.cli._common import current_invocation, debug_option, json_option, make_command, refuse_beam_args
from cptsel.cli._options import HelpArgument


def _callback(directory: str, as_json: bool) -> None:
    """Say what a directory made by cptsel is.

    An embedding run, a replay manifest, ordered or not, or an export: what is in it, how it was made, and whether it
    is complete.
    """
    from cptsel.cli import _output

    invocation = current_invocation()
    refuse_beam_args(invocation)
    with _output.progress(invocation.debug):
        from cptsel.pipeline.inspect import inspect as run

        summary = run(directory)
    _output.print_summary(summary, as_json)


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
