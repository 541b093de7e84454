"""The documentation is complete and current, and all that it and the code cite is there."""

import ast
import dataclasses
import importlib.util
import io
import re
import tokenize

import click
import pytest

import cptsel
from cptsel.cli.main import COMMANDS, cli
from cptsel.pipeline.exports.registry import EXPORTS

CONFIGS = {
    "embed": cptsel.EmbedConfig,
    "select": cptsel.SelectConfig,
    "order": cptsel.OrderConfig,
    "verify": cptsel.VerifyConfig,
    "export": cptsel.ExportConfig,
    "distill": cptsel.DistillConfig,
    "fisher": cptsel.FisherConfig,
    "compare": cptsel.CompareConfig,
    "explain": cptsel.ExplainConfig,
    "locate": cptsel.LocateConfig,
    "report": cptsel.ReportConfig,
}
FOLDERS = ("cli", "pipeline", "schemas", "src", "benchmarks", "docs", "examples", "tests")
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "sample_data/README.md",
    "benchmarks/README.md",
    "docs/design.md",
    "docs/engines.md",
    "docs/evidence.md",
    "docs/methods.md",
    "docs/performance.md",
    "docs/python.md",
    "docs/reliability.md",
    "docs/rounds.md",
    "docs/scale.md",
    "docs/trainers.md",
]
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


def test_the_pages_of_trainers_are_the_registry(repository):
    generator = load_generator(repository, "generate_trainers")
    for path, made in ((generator.PAGE, generator.page), (generator.README, generator.readme)):
        written = path.read_text(encoding="utf-8")
        assert written == made(written), f"{path.name} is out of date: run make docs"


def test_every_format_names_its_trainers(repository):
    """A trainer that is said to be proved has a version that a test has read with."""
    found = load_generator(repository, "generate_trainers").versions()
    for format in EXPORTS.values():
        assert format.trainers
        assert {name for trainer in format.trainers for name in trainer.proved} <= set(found)
    names = [trainer.name for format in EXPORTS.values() for trainer in format.trainers]
    assert len(set(names)) == len(names)


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


@pytest.mark.parametrize("name", PAGES)
def test_links_to_files_lead_somewhere(name, repository):
    page = repository / name
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", PAGES)
def test_paths_that_a_page_names_are_there(name, repository):
    for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", (repository / name).read_text(encoding="utf-8")):
        assert (repository / path).exists(), f"{name} names {path}, which is not there"


def python_files(repository):
    """The Python files of this repository; links to its folders are not followed."""
    for folder in FOLDERS:
        yield from sorted(path for path in (repository / folder).glob("**/*.py") if not path.is_symlink())


def remarks(path):
    """Docstrings and comments of a Python file, on one line each; comments that follow each other are one."""
    source = path.read_text(encoding="utf-8")
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    comments = [
        token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT
    ]
    for before, comment in zip([None, *comments], comments, strict=False):
        goes_on = before is not None and comment.start == (before.start[0] + 1, before.start[1])
        if goes_on:
            texts[-1] += " " + comment.string.lstrip("#: ")
        else:
            texts.append(comment.string.lstrip("#: "))
    return [" ".join(text.split()) for text in texts]


def test_every_cited_heading_is_in_the_design(repository):
    page = (repository / "docs" / "design.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \d+\. (.+)$", page, re.M)
    cited = 0
    for path in python_files(repository):
        for text in remarks(path):
            for heading in re.findall(r"docs/design\.md, ([^.,:;()]+)", text):
                assert heading in headings, f"{path}: docs/design.md has no heading {heading!r}"
                cited += 1
    assert cited


def test_headings_of_the_design_are_numbered_in_order(repository):
    page = (repository / "docs" / "design.md").read_text(encoding="utf-8")
    numbers = re.findall(r"^## (\d+)\. ", page, re.M)
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


def test_cited_files_are_there(repository):
    """Pages and modules that docstrings and comments name: by path from the root, or by the end of their path."""
    there = {f"/{path.relative_to(repository)}" for folder in FOLDERS for path in (repository / folder).glob("**/*.*")}
    there |= {f"/{path.name}" for path in repository.glob("*.*")}
    for path in python_files(repository):
        for text in remarks(path):
            for name in re.findall(r"(?<![\w*./])(?:\w[\w-]*/)*\w[\w-]*\.(?:md|py)\b", text):
                assert any(file.endswith(f"/{name}") for file in there), f"{path} names {name}, which is not there"
            assert not re.search(r"\b[A-Z]{4,}(?:\.md)? sections? \d", text), (
                f"{path} cites a document by section: {text}"
            )


def test_the_image_of_a_worker_has_the_versions_that_were_tested(repository):
    image = (repository / "Dockerfile").read_text()
    constraints = (repository / "constraints.txt").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S*)$", image, re.MULTILINE))
    assert f"apache-beam=={arguments['BEAM']}\n" in constraints
    assert f"on Python {arguments['PYTHON']}:" in constraints
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", image, re.MULTILINE) for name in line.split()}
    assert {name for name in copied if not name.startswith("$")} >= {"cli", "pipeline", "schemas", "src"}
    assert all((repository / name).exists() for name in copied if not name.startswith("$"))
    assert (repository / arguments["MODEL"] / "config.json").exists()
