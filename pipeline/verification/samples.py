"""Checks of a manifest's rows: every sample of every shard."""

import math
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import MANIFEST, SHARDS, Manifest
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.artifacts.visits import tally
from cptsel.pipeline.corpus.texts import unreadable
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.hashing import doc_key, sample_id
from cptsel.pipeline.summary import counted
from cptsel.pipeline.verification.rows import Rows, check_unique_ids
from cptsel.pipeline.verification.totals import Totals, add_file, check_totals
from cptsel.schemas.arrow import REPLAY_SHARDS, SAMPLES, VISITS, check_schema

_FINITE = sys.float_info.max
_TINY = math.nextafter(0, 1)
_NUMBERS = [
    "shard_id", "row_index", "window", "token_start", "token_count", "n_tokens", "weight", "inclusion_prob",
    "loss_weight", "repeat", "phase", "grad_norm",
]  # fmt: skip


def check_samples(manifest: Manifest, problems: Problems, progress: Progress | None = None) -> str:
    """Check shards.parquet, every samples file and, if all can be read, all totals. Returns what was looked at."""
    totals = Totals(Rows(manifest.curricula()))
    shards = _read_shards(manifest, problems)
    files = manifest.sample_files()
    tables = 0
    for done, (shard_id, name) in enumerate(files.items(), 1):
        table = read_table(manifest, name, SAMPLES, problems)
        if table is not None and shard_id in shards:
            before = problems.total
            _check_rows(manifest, name, shards[shard_id], table, problems)
            if problems.total == before:
                _check_visits(shards[shard_id], tally(table, manifest.realisation), problems)
            add_file(name, shard_id, table, totals)
            tables += 1
        elif table is not None and shards:
            problems.add(name, None, f"shard {shard_id} is not in {SHARDS}")
        if progress:
            progress(done, len(files), "files of samples")
    for shard_id in shards.keys() - files.keys():
        _check_visits(shards[shard_id], [], problems)
    check_unique_ids(totals.rows, problems)
    if tables == len(files):
        check_totals(manifest, shards, totals, problems)
    paths = {shard["path"] for shard in shards.values()}  # pools of one corpus have a row for each file
    samples = sum(tally.samples for tally in totals.shards.values())
    return f"{counted(samples, 'sample')} of {counted(len(paths), 'shard')}"


def read_table(manifest: Manifest, name: str, schema: pa.Schema, problems: Problems) -> pa.Table | None:
    """A table that meets its schema and has no null where none may be; else None, and the problem is noted."""
    if not io.exists(manifest.path(name)):
        return None  # check_files reports it
    try:
        table = io.read_parquet(manifest.path(name))
    except UsageError:
        problems.add(name, None, "can't be read as Parquet")
        return None
    phrase = check_schema(table.schema, schema)
    if phrase is None:
        empty = [entry.name for entry in schema if not entry.nullable and table[entry.name].null_count]
        phrase = f"column {empty[0]!r} has nulls" if empty else None
    if phrase is not None:
        problems.add(name, None, phrase)
        return None
    rows = manifest.header["files"][name].get("rows", table.num_rows)
    if rows != table.num_rows:
        problems.add(name, None, f"has {counted(table.num_rows, 'row')}, but {MANIFEST} says {rows}")
    return table


def _read_shards(manifest: Manifest, problems: Problems) -> dict[int, dict[str, Any]]:
    table = read_table(manifest, SHARDS, REPLAY_SHARDS, problems)
    rows = table.to_pylist() if table is not None else []
    shards: dict[int, dict[str, Any]] = {}
    for row, shard in enumerate(rows):
        if shards.setdefault(shard["shard_id"], shard) is not shard:
            problems.add(SHARDS, row, f"shard_id {shard['shard_id']} is listed twice")
        if problem := unreadable(shard["format"], shard["compression"]):
            problems.add(SHARDS, row, problem)
    return shards


def _check_visits(shard: dict[str, Any], played: list[dict[str, Any]], problems: Problems) -> None:
    """The visits of a shard, where ``shards.parquet`` has them, are what its samples play."""
    said = shard.get(VISITS.name)
    if said is not None and said != played:
        problems.add(SHARDS, None, f"visits of shard {shard['shard_id']} are not what its samples play")


def _check_rows(manifest: Manifest, name: str, shard: dict[str, Any], table: pa.Table, problems: Problems) -> None:
    """Values in range, names that follow from what they name, phases and groups that exist."""
    header = manifest.header
    column = {key: table[key].to_numpy() for key in _NUMBERS}
    for key, low, high in (
        ("shard_id", shard["shard_id"], shard["shard_id"]),
        ("row_index", 0, shard["rows"] - 1),
        ("window", 0, math.inf),
        ("token_start", 0, math.inf),
        ("token_count", 1, header["corpus"]["max_tokens"]),
        ("n_tokens", 1, column["token_count"]),
        ("weight", 0, _FINITE),
        ("inclusion_prob", _TINY, 1),
        ("loss_weight", *((0, _FINITE) if manifest.realisation in {"repeat", "loss"} else (1, 1))),
        ("repeat", *((0, header["weighting"]["max_repeats"]) if manifest.realisation == "repeat" else (1, 1))),
        ("grad_norm", 0, _FINITE),
    ):
        values = column[key].astype(np.float64)
        problems.add_rows(name, ~((values >= low) & (values <= high)), f"{key} is {{}}, out of its range", column[key])
    starts, ends = table["char_start"].to_pylist(), table["char_end"].to_pylist()
    spans = [0 <= a < b if None not in (a, b) else a is b for a, b in zip(starts, ends, strict=True)]
    problems.add_rows(name, ~np.asarray(spans, dtype=bool), "char_start and char_end span no window")
    _check_names(name, shard["path"], table, problems)
    known = {(entry.get("phase", 0), entry["group"]) for entry in header["groups"]}
    pairs = list(zip(column["phase"].tolist(), table["group"].to_pylist(), strict=True))
    method = pc.cast(table["method"], pa.string())
    other = pc.not_equal(method, header["selection"]["method"]).to_numpy()
    problems.add_rows(name, other, f"its method is not that in {MANIFEST}")
    unknown = np.asarray([pair not in known for pair in pairs], dtype=bool)
    problems.add_rows(name, unknown, f"its phase and group are not in {MANIFEST}")


def _check_names(name: str, path: str, table: pa.Table, problems: Problems) -> None:
    """doc_key and sample_id are the hashes of what they name."""
    keys, ids = table["doc_key"].to_pylist(), table["sample_id"].to_pylist()
    places = [table[key].to_pylist() for key in ("char_start", "char_end", "token_start", "token_count")]
    right_keys = [doc_key(path, row) if row >= 0 else "" for row in table["row_index"].to_pylist()]
    right_ids = []
    for key, (start, end, token_start, token_count) in zip(keys, zip(*places, strict=True), strict=True):
        if start is None:
            start, end = token_start, token_start + token_count
        right_ids.append(sample_id(key, start, end) if 0 <= start <= (end or -1) else "")
    wrong_keys = np.asarray([a != b for a, b in zip(keys, right_keys, strict=True)], dtype=bool)
    wrong_ids = np.asarray([a != b for a, b in zip(ids, right_ids, strict=True)], dtype=bool)
    problems.add_rows(name, wrong_keys, "doc_key is not the hash of its path and row")
    problems.add_rows(name, wrong_ids, "sample_id is not the hash of its document and window")
