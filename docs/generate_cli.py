"""Write docs/cli.md from the commands' own help pages: ``python docs/generate_cli.py`` or ``make docs``."""

from pathlib import Path

from cptsel.cli.main import COMMANDS, cli

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100  # characters of a line

HEAD = """\
# Command line

This page is made from the help pages of the commands (`make docs`); don't edit it by hand.

Options may also be given in a YAML file, with `--config`: write names without the leading dashes, a list for an option
that is repeatable, and `inputs`, `runs`, `replay` or the like for the arguments, as in a file that a command wrote;
whole numbers need no quotes. A flag wins over the file. Give an option only once on the command line and once in the
file, unless its help says that it is repeatable. The effective configuration is written beside every output, in the
same form. What follows the first `--` goes to Apache Beam.

Progress and warnings go to stderr, the summary to stdout. Exit codes:

| code | meaning |
| ---: | --- |
| 0 | done |
| 1 | an internal error; `--debug` shows the traceback |
| 2 | an option, path or combination that can't be used |
| 3 | more bad input data than allowed, or an input file is damaged |
| 4 | a directory is not what it says it is |
| 5 | some shards failed and the others are done; the same command resumes |
| 130 | interrupted |
"""


def page() -> str:
    """The whole page as Markdown."""
    root = cli.make_context("cptsel", [], resilient_parsing=True, terminal_width=WIDTH)
    parts = [HEAD, _block("cptsel", cli.get_help(root))]
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        context = command.make_context(name, [], parent=root, resilient_parsing=True)
        parts.append(_block(f"cptsel {name}", command.get_help(context)))
    return "\n".join(parts)


def _block(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## {title}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
