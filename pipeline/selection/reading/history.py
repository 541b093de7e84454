"""Rounds: what earlier manifests replayed, sample by sample (docs/design.md, Rounds)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.manifest import load_manifest, parse_table, read_data_file
from cptsel.pipeline.artifacts.run import EmbeddingRuns, RunShard
from cptsel.pipeline.errors import UsageError


@dataclass(frozen=True)
class History:
    """What was replayed before, and how that counts.

    Attributes:
        mode: ``exclude``: it is no candidate any more; ``discount``: it stays one and counts for less; ``cover``: it is
            no candidate, and coverage starts from it.
        discount: what a score or gain is multiplied by for each round, in (0, 1].
        files: for each shard of the runs, the files of its samples in earlier manifests, with their SHA-256.
    """

    mode: str = "exclude"
    discount: float = 0.5
    files: dict[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)


def open_history(directories: Sequence[str], runs: EmbeddingRuns, mode: str, discount: float) -> History:
    """Find what earlier manifests chose from the shards of these runs.

    Raises:
        UsageError: a directory is not a finished manifest, or has nothing to do with the corpus of the runs.
    """
    numbers: dict[str, list[int]] = {}  # pools of one corpus hold a shard each
    for shard in runs.shards:
        numbers.setdefault(shard.source["path"], []).append(shard.shard_id)
    files: dict[int, tuple[tuple[str, str], ...]] = {}
    rounds: set[str] = set()
    for directory in directories:
        manifest = load_manifest(directory)
        chosen = manifest.header["parent"] or manifest.manifest_id  # a manifest and its ordered copy are one round
        if chosen in rounds:
            continue
        rounds.add(chosen)
        shards = manifest.shards().select(["shard_id", "path"]).to_pylist()
        paths = {shard["shard_id"]: shard["path"] for shard in shards}
        mine = [(paths[key], name) for key, name in manifest.sample_files().items() if paths[key] in numbers]
        if not mine and manifest.sample_files():
            raise UsageError(
                f"--history {directory}: none of the shards that it replays is in these runs; a round must have been "
                "selected from the same corpus, embedded with the same --root"
            )
        for path, name in mine:
            entry = (manifest.path(name), manifest.header["files"][name]["sha256"])
            for shard_id in numbers[path]:
                files[shard_id] = (*files.get(shard_id, ()), entry)
    return History(mode, discount, files)


def played_rounds(shard: RunShard, history: History, ids: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64: in how many earlier manifests each sample was played at least once.

    Raises:
        VerificationError: a manifest's file is missing or is not the one that was written.
    """
    rounds = np.zeros(len(ids), np.int64)
    for path, sha256 in history.files.get(shard.shard_id, ()):
        table = parse_table(read_data_file(path, sha256), ["sample_id", "repeat"])
        played = table.filter(pc.greater(table["repeat"], 0))["sample_id"].combine_chunks()
        rounds += pc.is_in(ids, value_set=played).to_numpy()
    return rounds
