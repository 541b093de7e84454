"""What configurations share: options as fields of a frozen dataclass, for the command line, a YAML file and Python.

Each pass has its own in the ``config.py`` of its room.

``resolve`` merges a YAML file and flags (a flag wins); ``to_yaml`` is what is written beside every output.
"""

import dataclasses
import difflib
import math
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.yamlfile import read_mapping

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class ReadBy:
    """Which calls read an option, where not all do.

    Attributes:
        words: when it is read, as in "with --unit batch", or a function that says so.
        reads: whether a configuration is such a call.
        of_methods: whether that depends on the method alone.
    """

    words: str | Callable[[], str]
    reads: Callable[[Any], bool]
    of_methods: bool = False

    def __str__(self) -> str:
        return self.words if isinstance(self.words, str) else self.words()


@dataclass(frozen=True)
class Option:
    """What there is to say of an option beside its type and default, which are those of its field.

    Attributes:
        help: a sentence, with the unit where there is one.
        section: heading on the help page; None for a positional argument.
        metavar: what the value is called there.
        choices: the values there are, where they are few; a registry may grow.
        least: the least value.
        above: what it must be above, in place of that.
        most: the largest value.
        parse: reads a text, or raises ValueError.
        read: what reads it; None where every call does.
    """

    help: str
    section: str | None
    metavar: str | None = None
    choices: Collection[str] = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None
    parse: Callable[[str], Any] | None = None
    read: ReadBy | None = None


def option(default: Any = dataclasses.MISSING, help: str = "", *, section: str, **details: Any) -> Any:
    """A field that is an option; see ``Option`` for the details. Without a default it is required."""
    return dataclasses.field(default=default, metadata={"option": Option(help, section, **details)})


def argument(help: str, *, metavar: str, default: Any = dataclasses.MISSING) -> Any:
    """A field that is a positional argument. Without a default it is required."""
    return dataclasses.field(default=default, metadata={"option": Option(help, None, metavar)})


def options_of(kind: Any) -> dict[str, Option]:
    """The options that a configuration declares, by the names of their fields, in their order."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(kind) if "option" in field.metadata}


class Configuration:
    """Base of the configurations: values from Python are held against the fields' annotations as those from YAML are.

    A whole number is text where text is wanted, as in ``budget=500``, a path-like object its path, a number of numpy
    the one it stands for, and a list a tuple.

    Raises:
        UsageError: a value is of another type.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every configuration is a dataclass
            object.__setattr__(self, field.name, _from_python(field, getattr(self, field.name)))


def flag(name: str) -> str:
    """An option as users write it."""
    return "--" + name.replace("_", "-")


def default_of(kind: Any, name: str) -> Any:
    """The default of an option."""
    return next(field.default for field in dataclasses.fields(kind) if field.name == name)


def check_values(config: Any) -> None:
    """Hold every option against its own choices, range and form.

    Raises:
        UsageError: one is none of these.
    """
    for name, declared in options_of(config).items():
        value = getattr(config, name)
        if value is None:
            continue
        if declared.choices and value not in declared.choices:
            raise UsageError(f"{flag(name)} {value}: must be one of {', '.join(declared.choices)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_range(name, value, declared)
        try:
            if declared.parse is not None:
                declared.parse(value)
        except ValueError as error:
            raise UsageError(f"{flag(name)}: {error}") from error


def check_read(config: Any) -> None:
    """Refuse options that this call would ignore.

    Raises:
        UsageError: an option has another value than its default, and nothing reads it.
    """
    for name, declared in options_of(config).items():
        read = declared.read
        if read is not None and getattr(config, name) != default_of(config, name) and not read.reads(config):
            raise UsageError(f"{flag(name)} is read {read}; leave it out")


def _check_range(name: str, value: float, declared: Option) -> None:
    least, above, most = declared.least, declared.above, declared.most
    if least is None and above is None and most is None:
        if not math.isfinite(value):
            raise UsageError(f"{flag(name)} {value}: must be a finite number")
        return
    low = (least is None or value >= least) and (above is None or value > above)
    if math.isfinite(value) and low and (most is None or value <= most):
        return
    bounds = f"above {above:g}" if above is not None else f"at least {least:g}"
    if most is not None:
        bounds = f"{bounds} and at most {most:.10g}" if above is not None else f"between {least:g} and {most:.10g}"
    kind = "" if isinstance(value, int) else "a finite number "
    raise UsageError(f"{flag(name)} {value}: must be {kind}{bounds}")


Config = TypeVar("Config", bound="DataclassInstance")

_IN_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple[str, ...]": "a list of texts",
}

# Options of one call alone: read back by another, they would replace an output, do nothing, or do a part alone.
NOT_SAVED = frozenset({"overwrite", "dry_run", "shard_range"})


def resolve(kind: type[Config], file: str | None, flags: dict[str, Any]) -> Config:
    """Build a config from a YAML file (or None) and flags; a flag that is not None wins.

    Raises:
        UsageError: the file can't be read, is not a mapping, has an unknown key or one twice, a required option is
            missing, or a text is empty.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}
    command = kind.__name__.removesuffix("Config").lower()
    values = {} if file is None else _read_file(file, known, command)
    for name, value in flags.items():
        if value is not None and value != ():
            values[name] = value
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        names = [_called(kind, name) for name in missing]
        raise UsageError(f"missing: {', '.join(names)}; see cptsel {command} --help")
    for name, value in values.items():
        values[name] = _typed(known[name], value, file)
        _refuse_empty(kind, known[name], values[name])
    return kind(**values)


def _refuse_empty(kind: Any, field: "dataclasses.Field[Any]", value: Any) -> None:
    """Refuse an empty text, such as that of a shell's variable without a value: as a path it is the current directory.

    What has a form of its own is held against that.
    """
    declared = options_of(kind).get(field.name)
    if declared is not None and declared.parse is None and (value == "" or (isinstance(value, tuple) and "" in value)):
        rest = "" if field.default is dataclasses.MISSING else ", or leave it out"
        raise UsageError(f"{_called(kind, field.name)} is empty; give it a value{rest}")


def _called(kind: Any, name: str) -> str:
    """A required option or argument as the command line calls it."""
    declared = options_of(kind).get(name)
    return flag(name) if declared is None or declared.section else str(declared.metavar).strip("'.")


def _read_file(file: str, known: Collection[str], command: str) -> dict[str, Any]:
    """The options in a YAML file, by the names of their fields."""
    pairs = read_mapping(file, "--config", "lines of an option and its value, such as 'seed: 1'")
    values: dict[str, Any] = {}
    for key, value in pairs:
        name = str(key).replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"see cptsel {command} --help for those there are"
            raise UsageError(f"--config {file}: unknown option {key}; {hint}")
        if name in values:  # YAML itself would take the last
            raise UsageError(f"--config {file}: {name} was given twice; give it once")
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def _typed(field: "dataclasses.Field[Any]", value: Any, file: str | None) -> Any:
    """Hold a value from YAML or Python against the field's annotation.

    Whole numbers widen to float, and are text where text is wanted, as in a list of texts; nothing else is converted.
    """
    name, annotation = field.name, field.type
    text = str(annotation) if not isinstance(annotation, type) else annotation.__name__
    allowed = {part.strip() for part in text.split("|")}
    if value is None and "None" in allowed:
        return None
    if "tuple[str, ...]" in allowed:
        items = [_as_text(item) for item in _items(value)]
        if all(isinstance(item, str) for item in items):
            return tuple(items)
    elif isinstance(value, bool):
        if "bool" in allowed:
            return value
    elif isinstance(value, int) and "float" in allowed:
        return float(value)
    elif isinstance(value, int) and "str" in allowed:
        return _as_text(value)
    elif type(value).__name__ in allowed:
        return value
    wanted = next(words for kind, words in _IN_WORDS.items() if kind in allowed)
    place = f"--config {file}: {name}" if file else name
    if value is None:
        needed = field.default is dataclasses.MISSING
        raise UsageError(f"{place} has no value; give it {wanted}{'' if needed else ', or leave it out'}")
    try:
        written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()
    except yaml.YAMLError:  # an object of Python
        written = repr(value)
    declared, hint = field.metadata.get("option"), ""
    if isinstance(value, tuple) and wanted != _IN_WORDS["tuple[str, ...]"]:
        hint = "; it takes one value"
    elif isinstance(value, float) and declared is not None and declared.parse is not None:
        hint = '; a share is written "5%"'
    elif "text" in wanted and any(isinstance(item, float) for item in _items(value)):
        hint = "; write it in quotes"
    raise UsageError(f"{place}: {written[:60]} is not {wanted}{hint}")


def _from_python(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """Hold a value from Python against the field's annotation."""
    if isinstance(value, str) and str(field.type).startswith("tuple["):  # its letters would be taken for several texts
        raise UsageError(f"{field.name}={value!r}: must be a list or tuple of texts, such as [{value!r}]")
    plain = tuple(map(_plain, value)) if isinstance(value, list | tuple) else _plain(value)
    return _typed(field, plain, None)


def _plain(value: Any) -> Any:
    """What YAML could hold in place of a path or of a number of numpy; anything else as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _items(value: Any) -> Collection[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _as_text(value: Any) -> Any:
    """A whole number of YAML as text, as in "budget: 500"; anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def to_dict(config: Any) -> dict[str, Any]:
    """The effective configuration as plain YAML-able values."""
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(config).items()
    }


def to_yaml(config: Any) -> str:
    """The effective configuration as YAML: pass it back with ``--config``."""
    values = {name: value for name, value in to_dict(config).items() if name not in NOT_SAVED}
    return yaml.safe_dump(values, sort_keys=True, allow_unicode=True)
