"""What decides the rows of an embedding run, fixed before the first one: run.json, and the check of a rerun by it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any, cast

from cptsel.pipeline import hashing
from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.artifacts.run import shaping_packages
from cptsel.pipeline.config import check_read, check_values, to_dict
from cptsel.pipeline.corpus.formats.registry import FORMATS, file_format
from cptsel.pipeline.corpus.shards import Shard
from cptsel.pipeline.corpus.types import TokenRule
from cptsel.pipeline.embedding.blocks import BlockSize
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.gradients import sketch
from cptsel.pipeline.model.batching import TOKENS_PER_BATCH
from cptsel.pipeline.model.configuration import describe, max_positions
from cptsel.pipeline.model.device_map import device_of_map, parse_device_map
from cptsel.pipeline.model.fit import check_tokenizer
from cptsel.pipeline.model.frozen import ModelSpec
from cptsel.pipeline.model.naming import (
    has_device,
    local_path,
    pinned_revision,
    resolve_device,
    resolve_dtype,
    weights_fingerprint,
)
from cptsel.pipeline.model.tokenizer import Prefix, find_tokenizer, load_tokenizer, tokenizer_fingerprint
from cptsel.pipeline.summary import counted
from cptsel.schemas import arrow
from cptsel.schemas.headers import ModelFacts, Projection, RunHeader

DEFAULT_MAX_TOKENS = 1024
PACKAGES = ("apache-beam", "cptsel", "numpy", "pyarrow", "tokenizers", "torch", "transformers")

# Options that shape rows, by their name in EmbedConfig: a rerun with another value is refused, naming it.
SHAPING = (
    "format",
    "text_field",
    "id_field",
    "group_by",
    "split_special_tokens",
    "storage",
    "limit",
    "max_line_bytes",
    "threads",
)


@dataclass(frozen=True)
class ModelPlan:
    """The model as the driver sees it, without having loaded its weights.

    Attributes:
        spec: what workers load.
        prefix: what stands before every window.
        max_tokens, tokens_per_batch: of windows and batches.
        facts: what ``run.json`` says of it.
        weights, tokenizer: fingerprints; of the vocabulary, where it has no tokenizer.
        has_tokenizer: whether it has one.
        tokens: how files of token ids are read.
    """

    spec: ModelSpec
    prefix: Prefix
    max_tokens: int
    tokens_per_batch: int
    facts: ModelFacts
    weights: str
    tokenizer: str
    has_tokenizer: bool
    tokens: TokenRule


def check_config(config: EmbedConfig) -> None:
    """Check options by themselves, without model and corpus. Raises UsageError with option, value and range."""
    check_values(config)
    check_read(config)
    if config.pool and config.time_budget:
        raise UsageError("--pool and --time-budget both say how large the pool is; give one of them")
    if config.pool_alpha < 1 and not config.group_by:
        raise UsageError("--pool-alpha draws groups at rates of their own; say what they are by --group-by")
    if config.device_map and config.lookahead:
        raise UsageError(
            "--device-map with --lookahead: a model on several devices is not trained; give a checkpoint that your "
            "trainer made on the new text by --model, and the one before it by --base"
        )
    if config.shard_range and config.overwrite:
        raise UsageError(
            "--overwrite with --shard-range: each command would delete what the others write; delete the directory "
            "first, or use another --out"
        )
    if config.exclude is not None:
        read_exclusions(config.exclude)
    taken = set(arrow.embeddings_schema(1, 1, "int8", [], base_loss=True).names) & set(config.group_by)
    if taken:
        raise UsageError(f"--group-by {min(taken)}: cptsel writes a column of that name itself; rename the corpus's")
    if len(set(config.group_by)) != len(config.group_by):
        raise UsageError(f"--group-by: {', '.join(config.group_by)} names a column twice")


def holds_ids(files: Sequence[tuple[str, str, int]], named: str | None) -> bool:
    """Whether a corpus is one of token ids.

    Args:
        files: (uri, path, bytes) of every shard.
        named: format of all, if it is known.

    Raises:
        UsageError: some files are of ids, and others of text.
    """
    first: dict[bool, str] = {}
    for uri, _, _ in files:
        first.setdefault(FORMATS[file_format(uri, named)[0]].holds_ids, uri)
    if len(first) > 1:
        raise UsageError(f"{first[True]} holds token ids and {first[False]} text; embed them in runs of their own")
    return True in first


def plan_model(config: EmbedConfig, here: bool = True, text: bool = True) -> ModelPlan:
    """Look at the model's configuration, tokenizer and weight files.

    Args:
        config: of the run.
        here: whether the model will run on this machine, which must then have its device.
        text: whether there is text to tokenise, so that there must be a tokenizer.

    Raises:
        UsageError: it can't be had, is not a causal LM with a linear head, or ``--max-tokens`` does not fit it.
    """
    device_map = None if config.device_map is None else parse_device_map(config.device_map)
    device = resolve_device(config.device if device_map is None else device_of_map(device_map, here), here)
    path = local_path(config.model, config.revision)
    positions = max_positions(path, config.trust_remote_code)
    tokenizer, prefix, eos = find_tokenizer(path, config.trust_remote_code, needed=text)
    max_tokens = _longest_window(config.max_tokens, positions, prefix)
    spec = ModelSpec(
        source=config.model,
        revision=pinned_revision(path, config.model),
        device=device,
        dtype=resolve_dtype(config.dtype, device, path),
        trust_remote_code=config.trust_remote_code,
        threads=config.threads,
        seed=config.seed,
        sketch_dim=config.sketch_dim,
        validation_dim=config.validation_dim,
        exact_norm=config.norm == "exact",
        max_positions=max_tokens + len(prefix.ids),
        gradient=config.gradient,
        modules=config.modules,
        device_map=device_map,
    )
    described = describe(path, config.trust_remote_code, here)
    vocabulary = min(described.pop("embedding_rows"), described["vocab_size"])  # ids that come in and go out
    if tokenizer is not None:
        check_tokenizer(config.model, tokenizer, vocabulary)
    facts = {"source": config.model, "revision": spec.revision, "dtype": spec.dtype, "bos": prefix.kind} | described
    named = tokenizer_fingerprint(tokenizer) if tokenizer else hashing.fingerprint([vocabulary, prefix.ids])
    return ModelPlan(
        spec=spec,
        prefix=prefix,
        max_tokens=max_tokens,
        tokens_per_batch=config.tokens_per_batch or TOKENS_PER_BATCH[device.split(":")[0]],
        facts=cast(ModelFacts, facts),
        weights=weights_fingerprint(path, config.trust_remote_code),
        tokenizer=named,
        has_tokenizer=tokenizer is not None,
        tokens=TokenRule(eos if config.eod_token_id is None else config.eod_token_id, vocabulary),
    )


def _longest_window(asked: int | None, positions: int | None, prefix: Prefix) -> int:
    """Tokens of the longest window: as asked for, or by default as many as the model has room for, up to a limit.

    Args:
        asked: ``--max-tokens``.
        positions: of the model; None where it does not say.
        prefix: that takes some of them.

    Raises:
        UsageError: there is no room for it.
    """
    room = None if positions is None else positions - len(prefix.ids)
    longest = asked or min(DEFAULT_MAX_TOKENS, room or DEFAULT_MAX_TOKENS)
    if room is not None and longest > room:
        raise UsageError(
            f"--max-tokens {longest}: the model has {positions} positions, {len(prefix.ids)} taken by its prefix; "
            f"at most {room}"
        )
    return longest


def with_base(config: EmbedConfig, plan: ModelPlan, here: bool) -> tuple[ModelPlan, str]:
    """The plan of a run that has losses at ``--base`` beside those at the model, and the fingerprint of its weights.

    Raises:
        UsageError: it can't be had, or counts in other tokens.
    """
    before = plan_model(replace(config, model=str(config.base), revision=None), here, plan.has_tokenizer)
    if before.tokenizer != plan.tokenizer:
        raise UsageError(
            f"--base {config.base}: has another tokenizer than --model {config.model}; losses don't compare"
        )
    return replace(plan, spec=replace(plan.spec, base=(before.spec.source, before.spec.revision))), before.weights


def with_held(plan: ModelPlan, base: str | None) -> ModelPlan:
    """The plan for workers on other machines, which then make sure that they have the models that this one has.

    Args:
        plan: of the run.
        base: fingerprint of the weights of the model that was there before, where its losses are wanted.
    """
    spec = plan.spec
    held = [(spec.source, plan.weights), *([(spec.base[0], base)] if spec.base and base else [])]
    tokenizer = plan.tokenizer if plan.has_tokenizer else None
    return replace(plan, spec=replace(spec, held=tuple(held), tokenizer=tokenizer))


def check_runs_here(plan: ModelPlan, option: str, instead: str) -> None:
    """Refuse an option for which the command runs the model itself, on a machine that lacks the device.

    Only another engine, whose workers may have the device, leads there.

    Args:
        plan: of the model.
        option: that is given.
        instead: what can be done without it.

    Raises:
        UsageError: the machine does not have the device.
    """
    device = plan.spec.device
    if not has_device(device):
        raise UsageError(
            f"--device {device}: {option} runs the model on this machine too, which has no usable GPU; give the "
            f"command on one that has, or {instead}"
        )


def tokenizer_of(plan: ModelPlan) -> Any | None:
    """The tokenizer of the model, a revision of the Hub among them, or None where it has none."""
    if not plan.has_tokenizer:
        return None
    path = local_path(plan.spec.source, plan.spec.revision)
    return load_tokenizer(path, plan.spec.trust_remote_code)


def run_header(
    config: EmbedConfig,
    model: ModelPlan,
    root: str,
    shards: list[Shard],
    pool: dict[str, Any] | None = None,
    lookahead: dict[str, Any] | None = None,
    base: str | None = None,
    ids: bool = False,
    blocks: BlockSize | None = None,
) -> RunHeader:
    """run.json without totals: everything that decides the bytes of the rows.

    Args:
        config: of the run.
        model: at which gradients are taken.
        root, shards: of the corpus.
        pool: what ``pool_header`` says of it.
        lookahead: what decides the model, with ``--lookahead``.
        base: fingerprint of the weights of the model that was there before, with ``--base``.
        ids: whether the corpus is one of token ids.
        blocks: into which shards are cut.
    """
    projection = _projection(config, model)
    return {
        "format": "cptsel.run",
        "spec_version": arrow.RUN_VERSION_OF_IDS if ids else arrow.RUN_VERSION,
        "fingerprints": {
            "weights": model.weights,
            "tokenizer": model.tokenizer,
            "corpus": hashing.fingerprint([shard.identity for shard in shards]),
            "projection": hashing.fingerprint([projection, model.facts["vocab_size"], model.facts["hidden_size"]]),
        },
        "model": model.facts,
        "projection": projection,
        "options": _shaping_options(config, model, pool, lookahead, base, ids, blocks),
        "norm_kind": config.norm,
        "corpus": {"root": root, "shards": len(shards), "bytes": sum(shard.bytes for shard in shards)},
        "packages": {name: version(name) for name in PACKAGES},
    }


def _shaping_options(
    config: EmbedConfig,
    model: ModelPlan,
    pool: dict[str, Any] | None,
    lookahead: dict[str, Any] | None,
    base: str | None,
    ids: bool,
    blocks: BlockSize | None,
) -> dict[str, Any]:
    """What shapes rows beside model and projection; arguments as of ``run_header``."""
    options: dict[str, Any] = {name: to_dict(config)[name] for name in SHAPING}
    options |= (blocks or BlockSize()).options()
    options |= {"max_tokens": model.max_tokens, "tokens_per_batch": model.tokens_per_batch}
    options |= {"dtype": model.spec.dtype, "device": model.spec.device.split(":")[0]}
    options |= {"pool": pool, "lookahead": lookahead}
    if lookahead is not None:
        options["skip_base_loss"] = config.skip_base_loss
    elif base is not None:
        options["base"] = base
    if ids:
        options["tokens"] = asdict(model.tokens)
    excluded = sorted(read_exclusions(config.exclude)) if config.exclude else []
    options["exclude"] = hashing.fingerprint(excluded) if excluded else None
    return options


def _projection(config: EmbedConfig, model: ModelPlan) -> Projection:
    """How gradients become vectors."""
    vocab = model.facts["vocab_size"]
    projection: Projection = {
        "gradient": config.gradient,
        "modules": config.modules,
        "seed": config.seed,
        "format_version": sketch.FORMAT_VERSION,
        "k": config.sketch_dim,
        "k_v": min(sketch.K_V, vocab),
        "validation": {"k": config.validation_dim, "k_v": min(sketch.K_V_VALIDATION, vocab)},
    }
    if model.spec.mixing is not None:
        projection["mixing"] = dict(zip(("head", "body"), model.spec.mixing, strict=True))
    return projection


def remedy_for(config: EmbedConfig) -> str:
    """What to do where a run in ``--out`` has other rows than are asked for."""
    if config.shard_range:
        return "give all commands the same options, or use another --out"
    return f"use another --out, or --overwrite to replace {config.out}"


def refuse_difference(
    config: EmbedConfig, old: RunHeader, new: RunHeader, changed_shards: Sequence[str], only_new: bool
) -> None:
    """Raise UsageError where a rerun asks for other rows than ``--out`` has, naming what differs first.

    Args:
        config: of the rerun.
        old, new: ``run.json`` as it is there, and as it would be.
        changed_shards: paths of shards that came, went or changed.
        only_new: whether all of them only came.
    """
    out, remedy = config.out, remedy_for(config)
    if difference := first_difference(old, new, changed_shards):
        if only_new and difference.startswith("the corpus ("):
            remedy = (
                f"embed the new files alone, with --root {old['corpus']['root']}, into a run of their own, which "
                f"select takes beside this one; or {remedy}"
            )
        raise UsageError(f"{out}: {difference}; {remedy}")
    installed = shaping_packages(new)
    for name, before in shaping_packages(old).items():
        if installed.get(name) != before:
            raise UsageError(
                f"{out}: was begun with {name} {before}, now {installed.get(name)} is installed, which may round "
                f"otherwise; install that version, or {remedy}"
            )


def first_difference(
    old: RunHeader, new: RunHeader, changed_shards: Sequence[str] = (), but: Sequence[str] = ()
) -> str | None:
    """What decides the bytes of the rows and differs between two runs, in a phrase; None where nothing does.

    Args:
        old, new: ``run.json`` of both.
        changed_shards: paths, where they are known.
        but: options that may differ.
    """
    before, now = (header["options"].get("lookahead") for header in (old, new))
    if before != now:
        return lookahead_difference(before, now)
    what = {"weights": "the model's weights", "tokenizer": "the tokenizer", "corpus": "the corpus"}
    for name, words in what.items():
        if dict(old["fingerprints"])[name] != dict(new["fingerprints"])[name]:
            names = f" ({', '.join(changed_shards[:3])})" if name == "corpus" and changed_shards else ""
            return f"{words}{names} changed since this run was begun"
    if old["projection"] != new["projection"]:
        flags = {
            "gradient": "--gradient",
            "modules": "--modules",
            "seed": "--seed",
            "k": "--sketch-dim",
            "validation": "--validation-dim",
        }
        for key, flag in flags.items():
            before, now = (_size(header["projection"], key) for header in (old, new))
            if before != now:
                return f"was begun with {flag} {before}, now {now}"
        if old["projection"].get("mixing") != new["projection"].get("mixing"):
            return "head and body are mixed otherwise there (--mixing)"
        return "was begun by a version of cptsel with another projection"
    if old["norm_kind"] != new["norm_kind"]:
        return f"was begun with --norm {old['norm_kind']}, now {new['norm_kind']}"
    for name in sorted({*old["options"], *new["options"]} - {*but}):
        before, now = old["options"].get(name), new["options"].get(name)
        if before != now:
            if name == "tokens":
                return f"was begun with --eod-token-id {_show(before)}, now {_show(now)}"
            if name == "exclude":
                return "the list of --exclude changed since this run was begun"
            return f"was begun with --{name.replace('_', '-')} {_show(before)}, now {_show(now)}"
    return None


def lookahead_difference(before: dict[str, Any] | None, now: dict[str, Any] | None) -> str:
    """How what decides the checkpoints of two runs differs, in a phrase."""
    if before and now and {**before, "corpus": ""} == {**now, "corpus": ""}:
        return "the corpus of --lookahead changed"
    return f"was begun with --lookahead {_show(before)}, now {_show(now)}"


def _size(projection: Projection, key: str) -> Any:
    return projection["validation"]["k"] if key == "validation" else dict(projection)[key]


def _show(value: Any) -> str:
    if value is None or value == []:
        return "not set"
    if isinstance(value, dict) and "optimizer" in value:
        steps = f"{counted(value['steps'], 'step')} of {value['optimizer']} at {value['lr']:g}"
        return f"{steps} on {counted(value['tokens'], 'token')} each"
    if isinstance(value, dict) and "eod" in value:
        return f"{value['eod']} (of {value['vocabulary']} ids)"
    if isinstance(value, dict):  # a pool
        alpha = f" and --pool-alpha {value['alpha']:g}" if value["alpha"] != 1 else ""
        return f"{value['asked']}{alpha}" + (f" after {value['start']:.4%}" if value["start"] else "")
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
