"""Options made from the fields of a config: name, type and default are the dataclass's, the help is the command's."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

import click

from cptsel.pipeline.config import options_of
from cptsel.pipeline.errors import UsageError


class SectionOption(click.Option):
    """An option that knows under which heading of the help page it stands, and is given once unless ``multiple``."""

    def __init__(self, *args: Any, section: str = "General", **kwargs: Any) -> None:
        if not (kwargs.get("is_flag") or kwargs.get("multiple")):
            kwargs |= {"multiple": True, "callback": _only_value}  # click itself would take the last
        super().__init__(*args, **kwargs)
        self.section = section


def _only_value(_ctx: click.Context, option: click.Parameter, values: Sequence[Any] | None) -> Any:
    """The value of an option that takes one, None where it is not given. Raises UsageError where it is given twice."""
    if not values:
        return None
    if len(values) > 1:
        times = "twice" if len(values) == 2 else f"{len(values)} times"
        raise UsageError(f"{option.opts[0]} was given {times}; give it once")
    return values[0]


class HelpArgument(click.Argument):
    """A positional argument with a line on the help page; before click 8.2 arguments have none."""

    section = "Arguments"

    def __init__(self, *args: Any, explanation: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.explanation = explanation

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return self.make_metavar(ctx), self.explanation


class SectionCommand(click.Command):
    """A command whose help page lists its options under headings, in the order in which they were declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "General"), []).append(record)
        sections["General"] = sections.pop("General")  # to the end: --help is always among them
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def config_parameters(kind: Any) -> list[click.Parameter]:
    """The argument and options that a configuration declares, in the order of its fields.

    click's own default stays None, so that an option that is not given leaves room for ``--config``; the help text
    ends with the field's default.
    """
    found: list[click.Parameter] = []
    for name, declared in options_of(kind).items():
        if declared.section is None:
            found.append(config_argument(kind, name, declared.help, metavar=declared.metavar or name.upper()))
        else:
            found.append(
                config_option(
                    kind,
                    name,
                    declared.help,
                    section=declared.section,
                    choices=list(declared.choices) or None,
                    metavar=declared.metavar,
                )
            )
    return found


def config_argument(kind: type, field: str, help: str, *, metavar: str) -> HelpArgument:
    """A positional argument for one field of a config; a field that is a tuple takes any number of values.

    It is never required by click, since ``--config`` may give it.
    """
    many = _base_type(_field(kind, field).type) is tuple
    return HelpArgument([field], nargs=-1 if many else 1, required=False, metavar=metavar, explanation=help)


def config_option(
    kind: type,
    field: str,
    help: str,
    *,
    section: str,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
) -> SectionOption:
    """An option for one field of a config.

    click's own default stays None, so that an option that is not given leaves room for ``--config``; the help text
    ends with the dataclass's default.

    Args:
        kind: the config dataclass.
        field: name of the field; the flag is the same with dashes.
        help: one sentence, with the unit where there is one.
        section: heading on the help page.
        choices: the values allowed, where they are few.
        metavar: how the value is called on the help page.
    """
    spec = _field(kind, field)
    base = _base_type(spec.type)
    settings: dict[str, Any] = {"default": None, "section": section, "help": help + _default_note(spec)}
    if base is bool:
        settings["is_flag"] = True
    else:
        settings["type"] = click.Choice(list(choices)) if choices else (str if base is tuple else base)
        settings["multiple"] = base is tuple
        settings["metavar"] = metavar
    return SectionOption(["--" + field.replace("_", "-"), field], **settings)


def _field(kind: type, name: str) -> "dataclasses.Field[Any]":
    return next(item for item in dataclasses.fields(kind) if item.name == name)


def _base_type(annotation: Any) -> type:
    """``int`` of ``int`` and of ``int | None``; ``tuple`` of ``tuple[str, ...]``."""
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    return typing.get_origin(annotation) or annotation


def _default_note(spec: "dataclasses.Field[Any]") -> str:
    if spec.default is dataclasses.MISSING:
        return "  [required]"
    if spec.default is None or isinstance(spec.default, bool | tuple):
        return ""
    return f"  [default: {spec.default}]"
