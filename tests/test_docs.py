"""The documentation of the command line is complete and current."""

import dataclasses
import importlib.util
import re

import click
import pytest

import cptsel
from cptsel.cli.main import COMMANDS, cli

CONFIGS = {
    "embed": cptsel.EmbedConfig,
    "select": cptsel.SelectConfig,
    "order": cptsel.OrderConfig,
    "verify": cptsel.VerifyConfig,
    "export": cptsel.ExportConfig,
    "compare": cptsel.CompareConfig,
}
COMMAND_LIST = [cli.get_command(click.Context(cli), name) for name in COMMANDS]


def load_generator(repository, name):
    spec = importlib.util.spec_from_file_location(name, repository / "docs" / f"{name}.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    return generator


def test_the_page_is_what_the_commands_say(repository):
    written = (repository / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == load_generator(repository, "generate_cli").page(), "docs/cli.md is out of date: run make docs"


def test_the_table_of_methods_is_the_registry(repository):
    written = (repository / "docs" / "methods.md").read_text(encoding="utf-8")
    made = load_generator(repository, "generate_methods").page(written)
    assert written == made, "docs/methods.md is out of date: run make docs"


@pytest.mark.parametrize("command", COMMAND_LIST, ids=lambda command: command.name)
def test_every_command_and_option_has_help(command):
    assert command.help
    assert command.help.splitlines()[0] == COMMANDS[command.name], "the list and the command's own page differ"
    for parameter in command.params:
        text = parameter.help if isinstance(parameter, click.Option) else parameter.explanation
        assert text, f"{command.name} {parameter.name} has no help"
        assert re.fullmatch(r"[A-Za-z@'].*\.(  \[.*\])?", text), f"{command.name} {parameter.name}: not a sentence"


@pytest.mark.parametrize("command", COMMAND_LIST, ids=lambda command: command.name)
def test_every_option_is_on_the_page(command, repository):
    page = (repository / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.split(f"## cptsel {command.name}\n", 1)[1].split("\n## ", 1)[0]
    for parameter in command.params:
        for flag in parameter.opts if isinstance(parameter, click.Option) else [parameter.metavar]:
            assert re.search(
                rf"^  {re.escape(flag)}\b" if flag[-1].isalnum() else rf"^  {re.escape(flag)}", section, re.M
            )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_command_has_exactly_the_fields_of_its_config(name):
    fields = {field.name for field in dataclasses.fields(CONFIGS[name])} - {"beam_args"}
    parameters = {parameter.name for parameter in cli.get_command(click.Context(cli), name).params}
    assert parameters - {"config_file", "as_json", "debug"} == fields


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "sample_data/README.md"])
def test_links_to_files_lead_somewhere(name, repository):
    page = repository / name
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name} links to {target}"
