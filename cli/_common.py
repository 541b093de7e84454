"""What the commands share: making a command of a function, from its flags to the printed summary."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import click

from cptsel.cli._options import SectionCommand, SectionOption, config_parameters
from cptsel.cli.main import Invocation, show_tracebacks
from cptsel.pipeline.errors import CptselError, UsageError
from cptsel.pipeline.summary import Summary


def pass_command(kind: Any, example: str) -> Callable[[Callable[..., Summary]], click.Command]:
    """Make a command of a function ``(config, progress) -> summary``; its docstring is the help text.

    The command merges its flags with ``--config``, takes what follows ``--`` if its config has ``beam_args``, shows
    progress on stderr, and prints the summary.

    Args:
        kind: the config dataclass, which declares the command's arguments and options.
        example: one command line for the help page.
    """
    takes_beam_args = any(field.name == "beam_args" for field in dataclasses.fields(kind))

    def decorate(function: Callable[..., Summary]) -> click.Command:
        def callback(config_file: str | None, as_json: bool, **flags: Any) -> None:
            from cptsel.pipeline.config import resolve

            invocation = current_invocation()
            if takes_beam_args:
                flags["beam_args"] = invocation.beam_args
            else:
                refuse_beam_args(invocation)
            config = resolve(kind, config_file, flags)
            run_and_print(lambda progress: function(config, progress), invocation, as_json)

        options = [config_file_option(), json_option(), debug_option()]
        return make_command(
            function.__name__, function.__doc__, callback, [*config_parameters(kind), *options], example
        )

    return decorate


def run_and_print(run: Callable[[Any], Summary], invocation: Invocation, as_json: bool) -> None:
    """Call ``run`` with a function that shows progress, and print its summary, or that of the error it raises."""
    from cptsel.cli import _output

    try:
        with _output.progress(invocation.debug) as progress:
            summary = run(progress)
    except CptselError as error:
        if error.summary is not None:  # what was found before it failed; the error itself follows on stderr
            _output.print_summary(error.summary, as_json)
        raise
    _output.print_summary(summary, as_json)


def make_command(
    name: str, help: str | None, callback: Callable[..., None], parameters: list[click.Parameter], example: str
) -> click.Command:
    """A command with an example at the end of its help page."""
    return SectionCommand(
        name=name,
        callback=callback,
        params=parameters,
        help=inspect.cleandoc(help or ""),
        epilog=f"\b\nExample:\n  {example}",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def current_invocation() -> Invocation:
    """What ``main`` left for the command that is running."""
    return click.get_current_context().ensure_object(Invocation)


def refuse_beam_args(invocation: Invocation) -> None:
    """For commands that run without Beam. Raises UsageError if something follows ``--``."""
    if invocation.beam_args:
        raise UsageError(
            f"cptsel {click.get_current_context().info_name} runs without Beam: "
            f"leave out what follows -- ({' '.join(invocation.beam_args)})"
        )


def config_file_option() -> SectionOption:
    """``--config``."""
    return SectionOption(
        ["--config", "config_file"],
        metavar="FILE",
        help="YAML file of option names and values; a flag wins over the file.",
    )


def json_option() -> SectionOption:
    """``--json``."""
    return SectionOption(["--json", "as_json"], is_flag=True, help="Print the summary as JSON on stdout.")


def debug_option() -> SectionOption:
    """``--debug``."""
    return SectionOption(
        ["--debug"], is_flag=True, expose_value=False, callback=show_tracebacks, help="Show tracebacks of errors."
    )
