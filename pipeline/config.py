"""Configuration of the passes: one frozen dataclass a pass, the same for the command line, a YAML file and Python.

``resolve`` merges a YAML file and flags (a flag wins); ``to_yaml`` is what is written beside every output.
"""

import dataclasses
import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from cptsel.pipeline.errors import UsageError, first_line


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Options of ``cptsel embed``; see its ``--help`` and docs/cli.md for the meaning of each."""

    inputs: tuple[str, ...]
    model: str
    out: str
    root: str | None = None
    text_field: str = "text"
    id_field: str | None = "id"
    group_by: tuple[str, ...] = ()
    max_tokens: int | None = None
    sketch_dim: int = 1024
    validation_dim: int = 256
    storage: str = "float16"
    norm: str = "sketch"
    tokens_per_batch: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    exclude: str | None = None
    limit: int | None = None
    seed: int = 0
    max_bad_fraction: float = 0.01
    max_line_bytes: int = 64 << 20
    block_bytes: int = 8 << 20
    workers: int = 1
    threads: int = 1
    overwrite: bool = False
    dry_run: bool = False
    beam_args: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Options of ``cptsel select``."""

    runs: tuple[str, ...]
    out: str
    method: str = "craig"
    budget: str = "5%"
    scope: str = "shard"
    partition: str = "shard"
    partitions: int | None = None
    unit: str = "sample"
    batch_size: int = 8
    combine: str | None = None
    new: str | None = None
    mass: str = "corpus"
    interference_beta: float = 1.0
    importance: str = "norm"
    neighbours: int = 128
    similarity: str = "euclidean"
    refine: int = 2
    ridge: float | None = None
    parts: int | None = None
    tolerance: float = 0.0
    group_by: str | None = None
    group_alpha: float = 1.0
    group_mass: str | None = None
    group_floor: str | None = None
    group_cap: str | None = None
    cell_shares: str = "mass"
    history: tuple[str, ...] = ()
    history_mode: str = "exclude"
    history_discount: float = 0.5
    explore: float = 0.0
    phases: int = 1
    phase_budget: str | None = None
    phase_run: tuple[str, ...] = ()
    mix_ratio: float | None = None
    mix_decay: float = 1.0
    curriculum: str | None = None
    curriculum_order: str = "ascending"
    curriculum_buckets: int | None = None
    realisation: str = "repeat"
    replay_tokens: str | None = None
    max_repeats: int = 4
    skip_residuals: bool = False
    exclude: str | None = None
    seed: int = 0
    workers: int = 1
    overwrite: bool = False
    dry_run: bool = False
    beam_args: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OrderConfig:
    """Options of ``cptsel order``."""

    replay: str
    out: str
    epochs: int = 1
    world_size: int = 1
    staleness: float = 0.1
    seed: int = 0
    overwrite: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Options of ``cptsel verify``."""

    replay: str
    sources: bool = False
    root: str | None = None
    workers: int = 1
    beam_args: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of ``cptsel export``."""

    replay: str
    out: str
    to: str = "jsonl"
    root: str | None = None
    exclude: str | None = None
    workers: int = 1
    overwrite: bool = False
    dry_run: bool = False
    beam_args: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Options of ``cptsel compare``."""

    replays: tuple[str, ...]
    phase: int = 0


Config = TypeVar("Config", EmbedConfig, SelectConfig, OrderConfig, VerifyConfig, ExportConfig, CompareConfig)

_POSITIONAL = {
    "inputs": "GLOB",
    "runs": "RUN",
    "replay": "REPLAY",
    "replays": "REPLAY",
}  # as the command line calls them

_IN_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple[str, ...]": "a list of texts",
}
_BUDGETS = frozenset({"budget", "group_floor", "group_cap", "phase_budget"})

NOT_SAVED = frozenset({"overwrite", "dry_run"})  # they speak of one call, and would do harm in the next


def resolve(kind: type[Config], file: str | None, flags: dict[str, Any]) -> Config:
    """Build a config from a YAML file (or None) and flags; a flag that is not None wins.

    Raises:
        UsageError: the file can't be read, is not a mapping, has an unknown key or one twice, or a required option is
            missing.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}
    values = {} if file is None else _read_file(file, known, kind.__name__.removesuffix("Config").lower())
    for name, value in flags.items():
        if value is not None and value != ():
            values[name] = value
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        names = [_POSITIONAL.get(name) or "--" + name.replace("_", "-") for name in missing]
        raise UsageError(f"missing: {', '.join(names)}")
    for name, value in values.items():
        values[name] = _typed(name, value, known[name].type, file)
    return kind(**values)


def mapping_pairs(loader: yaml.SafeLoader, node: yaml.MappingNode) -> list[tuple[Any, Any]]:
    """Keys and values as they stand in the file, and after them those of a merge key (<<) that it doesn't have."""
    own = [key.value for key, _ in node.value]
    loader.flatten_mapping(node)  # puts what is merged first
    pairs = loader.construct_pairs(node, deep=True)
    merged = len(pairs) - len([name for name in own if name != "<<"])
    names = {str(key) for key, _ in pairs[merged:]}
    return [*pairs[merged:], *(pair for pair in pairs[:merged] if str(pair[0]) not in names)]


def _read_file(file: str, known: Collection[str], command: str) -> dict[str, Any]:
    """The options in a YAML file, by the names of their fields."""
    try:
        with open(file, encoding="utf-8") as handle:
            loader = yaml.SafeLoader(handle)
            node = loader.get_single_node()
            pairs = mapping_pairs(loader, node) if isinstance(node, yaml.MappingNode) else []
    except OSError as error:
        reason = (error.strerror or first_line(error)).lower()
        raise UsageError(f"--config {file}: can't be read ({reason}); name a YAML file of options") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"--config {file}: can't be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(node, yaml.MappingNode | None):
        raise UsageError(f"--config {file}: must be lines of an option and its value, such as 'seed: 1'")
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


def _typed(name: str, value: Any, annotation: Any, file: str | None) -> Any:
    """Hold a value from YAML against the field's annotation: int widens to float, nothing else is converted."""
    text = str(annotation) if not isinstance(annotation, type) else annotation.__name__
    allowed = {part.strip() for part in text.split("|")}
    if value is None and "None" in allowed:
        return None
    if "tuple[str, ...]" in allowed:
        items = value if isinstance(value, list | tuple) else (value,)
        if all(isinstance(item, str) for item in items):
            return tuple(items)
    elif isinstance(value, bool):
        if "bool" in allowed:
            return value
    elif isinstance(value, int) and "float" in allowed:
        return float(value)
    elif isinstance(value, int) and "str" in allowed:  # budget: 500
        return str(value)
    elif type(value).__name__ in allowed:
        return value
    wanted = next(words for kind, words in _IN_WORDS.items() if kind in allowed)
    place = f"--config {file}: {name}" if file else name
    if value is None:
        raise UsageError(f"{place} has no value; give it {wanted}, or leave it out")
    written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()
    hint = "; it takes one value" if isinstance(value, tuple) else ""
    if name in _BUDGETS and isinstance(value, float):
        hint = '; a share is written "5%"'
    raise UsageError(f"{place}: {written[:60]} is not {wanted}{hint}")


def to_dict(config: Any) -> dict[str, Any]:
    """The effective configuration as plain YAML-able values."""
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(config).items()
    }


def to_yaml(config: Any) -> str:
    """The effective configuration as YAML: pass it back with ``--config``."""
    values = {name: value for name, value in to_dict(config).items() if name not in NOT_SAVED}
    return yaml.safe_dump(values, sort_keys=True, allow_unicode=True)
