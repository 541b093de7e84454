"""Entry point: the group of commands, what goes to Beam, and how errors become one line and an exit code.

Only click is imported here; a command's module loads when that command is asked for.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

import click

import cptsel
from cptsel.cli._visible import visible
from cptsel.pipeline.errors import CptselError

# Name, then the line that `cptsel --help` prints, so that the list needs none of the modules.
COMMANDS = {
    "embed": "Embed a corpus: one sketched gradient for every sample.",
    "lookahead": "Train a copy of a model for a few steps on a new corpus, to embed the old corpus with it.",
    "select": "Choose a weighted subset of an embedded corpus: a replay manifest.",
    "order": "Put the shards of a manifest in order, epoch by epoch and rank by rank.",
    "verify": "Check that a manifest and its sources, an embedding run or an export are what they say.",
    "compare": "Compare selections from one corpus side by side.",
    "report": "Write an HTML file that shows a selection, or two side by side.",
    "inspect": "Say what a directory made by cptsel is.",
    "explain": "Say why samples were chosen, what they stand for, and when they are played.",
    "locate": "Say which sample a rank plays at a position.",
    "plan": "Say how much replay is needed, from a few small trainings.",
    "export": "Write the replay corpus that a manifest describes.",
    "distill": "Write what a teacher model predicts for the chosen samples.",
    "fisher": "Write the diagonal of the Fisher information over the chosen samples.",
}

_MAX_MESSAGE = 400  # characters of a foreign exception's text


@dataclass
class Invocation:
    """What ``main`` hands to commands beside click's options: the Beam options, and whether tracebacks are wanted."""

    beam_args: tuple[str, ...] = ()
    debug: bool = False


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"cptsel.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}; commands: {', '.join(COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def show_tracebacks(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Callback of ``--debug``."""
    if value:
        ctx.ensure_object(Invocation).debug = True


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(cptsel.__version__, prog_name="cptsel", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, callback=show_tracebacks, help="Show tracebacks of errors.")
def cli() -> None:
    """Choose replay data for the continual pre-training of language models.

    `embed` turns a corpus into gradient embeddings, `select` chooses a weighted subset of them, `order` schedules it
    for a trainer. What follows the first -- goes to Apache Beam.
    """


def run() -> NoReturn:
    """Run the command line and end the process with its exit code.

    The process ends by ``os._exit``. Where the interpreter ends by itself, a thread of a native library (Arrow, gRPC,
    torch) aborts it now and then, after all work is done, and the caller sees a failure.
    """
    _catch_signals()
    code = main()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # the reader of the output may have gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


#: Whether somebody has asked this process to end.
_asked_to_end = threading.Event()


def _catch_signals() -> None:
    """Let SIGTERM end a command as Ctrl-C does, and remember it: libraries turn the interrupt into errors of theirs."""

    def interrupt(number: int, frame: Any) -> None:
        _asked_to_end.set()
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in a script's background
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments without the program's name; ``sys.argv[1:]`` by default.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    split = args.index("--") if "--" in args else len(args)
    invocation = Invocation(beam_args=tuple(args[split + 1 :]))
    try:
        # With standalone_mode off click returns the code of --help and --version, and what the command returned: None.
        return cli.main(args[:split], prog_name="cptsel", obj=invocation, standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except BaseException as error:
        if invocation.debug and not isinstance(error, click.ClickException | click.Abort):
            click.echo(visible(traceback.format_exc(), keep="\n"), err=True, nl=False)
        return _report(error)


def _report(error: BaseException) -> int:
    """Print an error as one line on stderr and return its exit code."""
    match error:
        case SystemExit():
            raise error
        case _ if _asked_to_end.is_set() or isinstance(error, click.Abort | KeyboardInterrupt):
            message, code = "interrupted", 130
        case click.UsageError():
            message, code = _usage(error), 2
        case click.ClickException():
            message, code = error.format_message(), error.exit_code
        case CptselError():
            message, code = str(error), error.exit_code
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            message, code = f"{place}{error.strerror or error}; mend that and run the command again", 2
        case _:
            message, code = f"internal error ({_brief(error)}): rerun with --debug for the traceback", 1
    prefix = click.style("cptsel: error:" if code != 130 else "cptsel:", fg="red", bold=True)
    click.echo(f"{prefix} {visible(' '.join(message.split()))}", err=True)
    return code


def _usage(error: click.UsageError) -> str:
    """What is wrong with the arguments, and where the right ones are listed."""
    path = error.ctx.command_path if error.ctx else "cptsel"
    text = error.format_message().rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; see {path} --help"


def _brief(error: BaseException) -> str:
    """The kind of an exception and the last line of its text: Beam puts a whole traceback into the message."""
    lines: list[Any] = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."
