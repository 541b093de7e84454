"""The model at which chosen samples are seen: looked at by the driver, loaded once by each worker process."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import cast

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import Manifest
from cptsel.pipeline.artifacts.token_ids import TokenIds, token_ids
from cptsel.pipeline.chosen.config import AtModel
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.model.configuration import describe, max_positions
from cptsel.pipeline.model.fit import check_tokenizer
from cptsel.pipeline.model.frozen import FrozenModel, ModelSpec
from cptsel.pipeline.model.naming import (
    local_path,
    pinned_revision,
    resolve_device,
    resolve_dtype,
    weights_fingerprint,
)
from cptsel.pipeline.model.tokenizer import find_tokenizer
from cptsel.schemas.headers import ModelAt

_PACKAGES = ("cptsel", "numpy", "pyarrow", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class ResolvedModel:
    """What workers load, what the header says of it, and how documents become its tokens."""

    spec: ModelSpec
    facts: ModelAt
    tokens: TokenIds


def resolve_model(manifest: Manifest, config: AtModel, here: bool) -> ResolvedModel:
    """Look at a model's configuration, tokenizer and weight files.

    Args:
        manifest: whose samples it sees.
        config: of the command.
        here: whether the model will run on this machine, which must then have its device.

    Raises:
        UsageError: it can't be had, is not a causal LM with a linear head, has too few positions or another tokenizer,
            or is none that the manifest names and ``--any-model`` is not given.
    """
    model = os.path.abspath(config.model) if os.path.isdir(config.model) else config.model
    device = resolve_device(config.device, here)
    path = local_path(model, config.revision)
    tokens = token_ids(manifest, path, "--model", config.trust_remote_code)
    tokenizer, prefix, _ = find_tokenizer(path, config.trust_remote_code, needed=not manifest.of_ids)
    weights = weights_fingerprint(path, config.trust_remote_code)
    of_manifest = _is_of_manifest(manifest, config, weights)
    positions = manifest.header["corpus"]["max_tokens"] + len(prefix.ids)
    _check_positions(config, positions, max_positions(path, config.trust_remote_code))
    spec = ModelSpec(
        source=model,
        revision=pinned_revision(path, model),
        device=device,
        dtype=resolve_dtype(config.dtype, device, path),
        trust_remote_code=config.trust_remote_code,
        threads=config.threads,
        max_positions=positions,
        held=() if here else ((model, weights),),
    )
    described = describe(path, config.trust_remote_code, here)
    rows = min(described["embedding_rows"], described["vocab_size"])
    if tokenizer is not None:
        check_tokenizer(config.model, tokenizer, rows)
    if manifest.of_ids and tokens.vocabulary.size > rows:
        raise UsageError(
            f"--model {config.model}: has {rows:,} ids, and the corpus was embedded by a model with "
            f"{tokens.vocabulary.size:,}; give a model with as many"
        )
    facts = {
        "source": config.model,
        "revision": spec.revision,
        **{name: described[name] for name in ("class", "vocab_size", "hidden_size")},
        "dtype": spec.dtype,
        "bos": prefix.kind,
        "prefix": list(prefix.ids),
        "weights": weights,
        "tokenizer": manifest.header["corpus"]["tokenizer"],
        "of_manifest": of_manifest,
    }
    return ResolvedModel(spec, cast(ModelAt, facts), tokens)


def _is_of_manifest(manifest: Manifest, config: AtModel, weights: str) -> bool:
    """Whether a fingerprint of weights is one that the manifest names. Raises UsageError where it must be."""
    named = manifest.header["provenance"]["model"]
    found = weights in (named.get("weights"), named.get("before_lookahead"))
    if not found and not config.any_model:
        source = f" ({named['source']})" if "source" in named else ""
        raise UsageError(
            f"--model {config.model}: is not the model that {manifest.directory} names{source}, as the fingerprint of "
            "its weights differs; give that one, or --any-model to take another checkpoint"
        )
    return found


def _check_positions(config: AtModel, needed: int, there: int | None) -> None:
    """Raise UsageError where the model has fewer positions than the longest window needs; None is any number."""
    if there is not None and needed > there:
        raise UsageError(
            f"--model {config.model}: has {there} positions, and windows of this corpus need {needed}; give a model "
            "with as many"
        )


def packages() -> dict[str, str]:
    """Versions of what decides the bytes."""
    return {name: version(name) for name in _PACKAGES}


def with_absolute_paths(config: AtModel) -> dict[str, str | None]:
    """Options that workers in other directories read, and that a saved configuration is to have, as absolute paths."""
    return {
        "model": io.absolute(config.model) if os.path.isdir(config.model) else config.model,
        "root": config.root and io.absolute(config.root),
        "out": io.absolute(config.out),
    }


_one_at_a_time = threading.Lock()  # a runner may call several steps of a process at once


@lru_cache(maxsize=1)
def _load(spec: ModelSpec) -> FrozenModel:
    return FrozenModel(spec)


@contextmanager
def loaded(spec: ModelSpec) -> Iterator[FrozenModel]:
    """The model, for one thread at a time. Raises UsageError where cptsel can't handle it."""
    with _one_at_a_time:
        yield _load(spec)


def release() -> None:
    """Let go of the model where workers are this process."""
    _load.cache_clear()
