"""Options made from the fields of a config: name, type and default are the dataclass's, the help is the command's."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

import click

from cptsel.pipeline.config import Option, flag, options_of
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
    """The arguments and options that a configuration declares, in the order of its fields."""
    return [
        _argument(kind, name, declared) if declared.section is None else _option(kind, name, declared)
        for name, declared in options_of(kind).items()
    ]


def _argument(kind: Any, name: str, declared: Option) -> HelpArgument:
    """A positional argument; a field that is a tuple takes any number of values.

    It is never required by click, since ``--config`` may give it.
    """
    many = _base_type(_field(kind, name).type) is tuple
    return HelpArgument(
        [name], nargs=-1 if many else 1, required=False, metavar=declared.metavar, explanation=declared.help
    )


def _option(kind: Any, name: str, declared: Option) -> SectionOption:
    """An option, whose flag is the field's name with dashes.

    click's own default stays None, so that an option that is not given leaves room for ``--config``; the help text
    ends with the field's default.
    """
    spec = _field(kind, name)
    base = _base_type(spec.type)
    settings: dict[str, Any] = {"default": None, "section": declared.section}
    settings["help"] = declared.help + _default_note(spec)
    if base is bool:
        settings["is_flag"] = True
    else:
        plain = str if base is tuple else base
        settings["type"] = click.Choice(list(declared.choices)) if declared.choices else plain
        settings["multiple"] = base is tuple
        settings["metavar"] = declared.metavar
    return SectionOption([flag(name), name], **settings)


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
