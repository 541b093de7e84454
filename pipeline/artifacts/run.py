"""Reading embedding runs: one, several disjoint ones as their union, or one corpus at several checkpoints.

``open_runs`` unites pools, which share one fingerprint; ``open_checkpoints`` lays runs of the same samples under other
weights of the model beside each other (docs/design.md, Checkpoints). Both read the small files on the driver and refuse
what can't be combined; a ``RunShard`` is what a worker gets, and all it needs to read that shard's rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.seal import broken_small_files
from cptsel.pipeline.corpus.pool import Pool
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.hashing import fingerprint
from cptsel.pipeline.summary import counted
from cptsel.schemas.arrow import RUN_SHARDS, RUN_VERSION, RUN_VERSION_OF_IDS, UNITS, check_schema, embeddings_schema
from cptsel.schemas.headers import RunHeader
from cptsel.schemas.validation import validate

FORMAT = "cptsel.run"
MEND = "delete it and run the same cptsel embed command again, which makes it anew"

# Options that say which rows a run holds, or how it was computed, but not what a row means: a union may mix them.
_MAY_DIFFER = frozenset(
    {
        "format",
        "limit",
        "exclude",
        "pool",
        "lookahead",
        "skip_base_loss",
        "base",
        "block_bytes",
        "block_rows",
        "max_line_bytes",
        "tokens_per_batch",
        "device",
        "threads",
    }
)

# Of what a shard is made of.
_UNIT_COLUMNS = ["shard_id", "block", "windows_embedded", "n_tokens", "footer_sha256", "bytes"]
_BATCH = 1 << 14  # rows that are Python's at a time

_NOT_SHAPING = frozenset({"apache-beam", "cptsel"})  # packages whose version decides nothing of a row


@dataclass(frozen=True)
class RunShard:
    """One shard of the corpus as embedded: its row of ``shards.parquet`` and its embedding files in corpus order.

    Attributes:
        shard_id: number in the union of the runs.
        source: the row of ``shards.parquet``, with that number.
        files: paths of the embedding files that hold rows.
        rows: how many each holds, by ``units.parquet``; so are the next two.
        n_tokens: predicted tokens of all rows.
        footers: SHA-256, in hex, of the footer of each file.
        bytes: of all of the files, by ``units.parquet``.
        later: the same samples, row by row, at the other checkpoints.
        pools: disjoint pools that sample the shard together, where there are several: a document's probability is the
            sum of theirs.
    """

    shard_id: int
    source: dict[str, Any]
    files: tuple[str, ...]
    rows: tuple[int, ...]
    n_tokens: int = 0
    footers: tuple[str, ...] = ()
    bytes: int = 0
    later: tuple["RunShard", ...] = ()
    pools: tuple[Pool, ...] = ()

    @property
    def samples(self) -> int:
        return sum(self.rows)


@dataclass(frozen=True)
class EmbeddingRuns:
    """One or several finished runs, read as one.

    Attributes:
        directories: the runs, in the order given.
        headers: their ``run.json``.
        shards: all shards, numbered 0, 1, ... run after run.
        schema: required schema of every embedding file.
        checkpoints: how many runs hold each sample: 1, but for ``open_checkpoints``.
    """

    directories: tuple[str, ...]
    headers: tuple[RunHeader, ...]
    shards: tuple[RunShard, ...]
    schema: pa.Schema
    checkpoints: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """The options that shaped the rows, as of the first run."""
        return dict(self.headers[0]["options"])

    @property
    def files(self) -> int:
        """How many files the corpus has; pools of one corpus have a shard of each."""
        return len({shard.source["path"] for shard in self.shards})

    @property
    def groups(self) -> list[str]:
        """Names of the group columns."""
        return list(self.options.get("group_by") or ())


def open_runs(directories: Sequence[str]) -> EmbeddingRuns:
    """Open one run, or several as their union.

    Raises:
        UsageError: none given, one is not a finished run, or they can't be united; the sentence names the difference.
    """
    if not directories:
        raise UsageError("no embedding run given; name the output of cptsel embed")
    paths = tuple(io.absolute(directory) for directory in directories)
    headers = tuple(open_header(path) for path in paths)
    for path, header in zip(paths[1:], headers[1:], strict=True):
        _check_alike(paths[0], headers[0], path, header)
    shards: list[RunShard] = []
    for path in paths:
        shards += open_shards(path, first_id=len(shards))
    pools = _joint_pools(paths, headers)
    if not pools:
        _check_disjoint(shards)
    if pools:
        shards = [replace(shard, pools=pools) for shard in shards]
    return EmbeddingRuns(paths, headers, tuple(shards), rows_schema(headers))


def _joint_pools(paths: Sequence[str], headers: Sequence[RunHeader]) -> tuple[Pool, ...]:
    """The pools of runs that are disjoint samples of one corpus; none where they are not of one corpus.

    Raises:
        UsageError: they are, and a document may be in two.
    """
    if len({header["fingerprints"]["corpus"] for header in headers}) > 1 or len(headers) < 2:
        return ()
    pools = [Pool.from_json(header["projection"]["seed"], header["options"].get("pool")) for header in headers]
    if all(pool.is_all for pool in pools):
        return ()
    for number, (path, pool) in enumerate(zip(paths, pools, strict=True)):
        for other_path, other in zip(paths[:number], pools[:number], strict=True):
            if other.by != pool.by or not (other.ends_before(pool) or pool.ends_before(other)):
                raise UsageError(
                    f"{path} and {other_path} are of one corpus and may hold the same documents; name one of them, or "
                    "embed the second pool by --after"
                )
    return tuple(pools)


def open_checkpoints(directories: Sequence[str]) -> EmbeddingRuns:
    """Open runs of the same samples under several weights of one model; the first gives all columns but the vectors.

    Raises:
        UsageError: fewer than two runs, one is not a finished run, or they do not hold the same samples in the same
            terms; the sentence names the difference.
    """
    if len(directories) < 2:
        raise UsageError(
            "several checkpoints are several runs: name a second run of the same samples, or one run alone"
        )
    runs = [open_runs([directory]) for directory in directories]
    first = runs[0]
    for number, other in enumerate(runs):
        if number:
            check_same_samples(first, other)
        for earlier in runs[:number]:
            if earlier.headers[0]["fingerprints"]["weights"] == other.headers[0]["fingerprints"]["weights"]:
                raise UsageError(
                    f"{other.directories[0]} and {earlier.directories[0]} are of the same checkpoint: the model's "
                    "weights are equal; name runs of different checkpoints, or one run alone"
                )
    shards = tuple(
        replace(shard, later=tuple(other.shards[number] for other in runs[1:]))
        for number, shard in enumerate(first.shards)
    )
    headers = tuple(run.headers[0] for run in runs)
    return EmbeddingRuns(
        tuple(run.directories[0] for run in runs), headers, shards, first.schema, checkpoints=len(directories)
    )


def check_same_samples(first: EmbeddingRuns, other: EmbeddingRuns) -> None:
    """Refuse runs that do not hold the same samples in the same terms, but for the weights of the model.

    Raises:
        UsageError: the sentence names the difference.
    """
    path = other.directories[0]
    _check_alike(first.directories[0], first.headers[0], path, other.headers[0], but=("weights",))
    if problem := _other_samples(first, other):
        raise UsageError(
            f"{path} does not hold the samples of {first.directories[0]}: {problem}; embed the same corpus with the "
            "same options at every checkpoint"
        )


def _other_samples(first: EmbeddingRuns, other: EmbeddingRuns) -> str | None:
    """What shows, from the small files, that two runs hold other samples; workers compare every sample_id as well."""
    for name in ("limit", "exclude", "exclude_sha256", "pool"):
        mine, its = first.options.get(name), other.options.get(name)
        if mine != its:
            return f"option {name} is {its}, not {mine}"
    if len(first.shards) != len(other.shards):
        return f"it has {counted(len(other.shards), 'shard')}, not {len(first.shards)}"
    for mine, its in zip(first.shards, other.shards, strict=True):
        for name in ("path", "sha256"):
            if mine.source[name] != its.source[name]:
                return f"shard {mine.shard_id} has the {name} {its.source[name]}, not {mine.source[name]}"
        if mine.samples != its.samples:
            return f"shard {mine.source['path']} has {counted(its.samples, 'sample')}, not {mine.samples}"
    return None


def unit_name(shard_id: int, block: int) -> str:
    """Name of the two files of a unit, under ``embeddings/`` and ``rejects/``."""
    return f"{shard_id:06d}-{block:05d}.parquet"


def open_header(directory: str) -> RunHeader:
    """``run.json`` of a finished run.

    Raises:
        UsageError: it is no finished run, or not one that this release reads.
        VerificationError: it, or a file that it names by checksum, was changed.
    """
    path = io.join(directory, "run.json")
    if not io.exists(path):
        maker = outputs.made_by(directory)
        hint = f"it was written by cptsel {maker}" if maker not in {None, "embed"} else "it has no run.json"
        raise UsageError(f"{directory} is not an embedding run: {hint}; name the output of cptsel embed")
    found = io.read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UsageError(f"{path}: its format is not {FORMAT!r}; name the output of cptsel embed")
    version = found.get("spec_version")
    if isinstance(version, int) and version > RUN_VERSION_OF_IDS:
        raise UsageError(
            f"{path}: spec_version {version} is newer than this cptsel reads ({RUN_VERSION_OF_IDS}); upgrade it"
        )
    if isinstance(version, int) and version < RUN_VERSION:
        raise UsageError(
            f"{path}: spec_version {version} is of an older cptsel, whose runs can't be checked; embed again"
        )
    try:
        header = validate(found, "run")
    except ValueError as error:
        raise UsageError(f"{directory}: {error}; restore the run or embed again") from error
    if not io.exists(io.join(directory, outputs.SUCCESS)):
        raise UsageError(
            f"{directory}: this embedding run is not finished (no _SUCCESS); run the same cptsel embed command again, "
            "it goes on where it stopped (of several with --shard-range, cptsel inspect says which)"
        )
    for broken in broken_small_files(directory, header):
        raise VerificationError(f"{directory}: {broken}; restore the run or embed again")
    return header


def open_shards(directory: str, first_id: int) -> list[RunShard]:
    """The shards of one run, numbered from ``first_id`` in order of their own numbers."""
    rows = _read_small(directory, "shards.parquet", RUN_SHARDS).sort_by("shard_id")
    units = _read_small(directory, "units.parquet", UNITS, _UNIT_COLUMNS)
    units = units.filter(pc.greater(units["windows_embedded"], 0))
    units = units.sort_by([("shard_id", "ascending"), ("block", "ascending")])
    ids, own = units["shard_id"].to_numpy(), rows["shard_id"].to_numpy()
    starts, ends = (np.searchsorted(ids, own, side).tolist() for side in ("left", "right"))
    blocks, held, tokens, footers, sizes = (units[name].to_pylist() for name in _UNIT_COLUMNS[1:])
    there = set(io.list_names(io.join(directory, "embeddings"), ".parquet"))
    shards: list[RunShard] = []
    for batch in rows.to_batches(_BATCH):  # all rows at once would be as much again as what is made of them
        for row in batch.to_pylist():
            mine = slice(starts[len(shards)], ends[len(shards)])
            names = [unit_name(row["shard_id"], block) for block in blocks[mine]]
            missing = [name for name in names if name not in there]
            if missing:
                raise UsageError(f"{directory}/embeddings/{missing[0]} is missing; restore it, or embed again")
            row["shard_id"] = first_id + len(shards)
            files = tuple(io.join(directory, "embeddings", name) for name in names)
            counts = (tuple(held[mine]), sum(tokens[mine]), tuple(footers[mine]), sum(sizes[mine]))
            shards.append(RunShard(row["shard_id"], row, files, *counts))
    return shards


def _read_small(directory: str, name: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Columns of one of a run's own tables, which must have all of its schema."""
    path = io.join(directory, name)
    if problem := check_schema(io.read_parquet_schema(path), schema):
        raise UsageError(f"{path}: {problem}; restore the run or embed again")
    return io.read_parquet(path, columns)


def _check_alike(first_path: str, first: RunHeader, path: str, header: RunHeader, but: Sequence[str] = ()) -> None:
    """Refuse to put runs together whose rows do not mean the same, naming the first difference."""
    differences: list[tuple[str, Any, Any]] = [
        (f"fingerprint of the {name}", mine, dict(header["fingerprints"])[name])
        for name, mine in first["fingerprints"].items()
        if name != "corpus" and name not in but
    ]
    differences.append(("kind of norm", first["norm_kind"], header["norm_kind"]))
    names = sorted((set(first["options"]) | set(header["options"])) - _MAY_DIFFER)
    differences += [(f"option {name}", first["options"].get(name), header["options"].get(name)) for name in names]
    for what, mine, other in differences:
        if mine != other:
            mine, other = (str(value)[:60] for value in (mine, other))
            remedy = "select from one of them, or embed both corpora with the same model and options"
            if what == "fingerprint of the weights":
                remedy += "; runs of one corpus at several checkpoints go together with --combine"
            raise UsageError(
                f"{path} and {first_path} can't be united: the {what} differs ({other} and {mine}); {remedy}"
            )


def _check_disjoint(shards: list[RunShard]) -> None:
    """Refuse two shards that could hold the same sample: a sample_id is a hash of relative path, row and span."""
    seen: dict[tuple[str, str], RunShard] = {}
    for shard in shards:
        for name in ("path", "uri"):
            other = seen.setdefault((name, shard.source[name]), shard)
            if other is not shard:
                raise UsageError(
                    f"two of the runs have embedded a shard with the {name} {shard.source[name]} "
                    f"({other.source['uri']} and {shard.source['uri']}), so a sample would stand there twice; "
                    "give disjoint runs, embedded with one --root"
                )


def run_fingerprint(header: RunHeader) -> str:
    """Names what a run holds, by everything in ``run.json`` that decides the bytes of its rows."""
    keys = ("format", "spec_version", "fingerprints", "projection", "options", "norm_kind")
    return fingerprint(
        {key: value for key, value in header.items() if key in keys} | {"packages": shaping_packages(header)}
    )


def pool_totals(header: RunHeader) -> dict[str, Any]:
    """Lines of a summary about what was embedded: the pool's rates, and where along a new corpus the model stood."""
    pool, ahead = header["options"].get("pool"), header["options"].get("lookahead")
    found = {}
    if pool is not None:
        rates = sorted({rate for _, _, rate in pool["groups"]} or {pool["rate"]})
        by = f" to {rates[-1]:.4%} by {pool['by']}" if len(rates) > 1 else ""
        found["pool"] = f"{rates[0]:.4%}{by}" + (f", after {pool['start']:.4%}" if pool["start"] else "")
    if ahead is not None:
        found["lookahead"] = f"{counted(ahead['steps'], 'step')} of {ahead['optimizer']} at {ahead['lr']:g}"
    return found


def shaping_packages(header: RunHeader) -> dict[str, str]:
    """Versions of the packages by which bytes are promised."""
    return {name: number for name, number in header["packages"].items() if name not in _NOT_SHAPING}


def rows_schema(headers: Sequence[RunHeader]) -> pa.Schema:
    """Schema of the rows that all runs have."""
    options, projection = headers[0]["options"], headers[0]["projection"]
    return embeddings_schema(
        projection["k"],
        projection["validation"]["k"],
        options["storage"],
        list(options.get("group_by") or ()),
        base_loss=all(has_base_loss(header) for header in headers),
    )


def has_base_loss(header: RunHeader) -> bool:
    """Whether a run has losses at the model before it saw new text beside those after it."""
    return header["options"].get("skip_base_loss") is False or header["options"].get("base") is not None
