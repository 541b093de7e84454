"""Reading a manifest for a few of its samples: narrow columns of many files, whole rows of few."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import SHARDS, Manifest, samples_name
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import VerificationError
from cptsel.schemas.arrow import REPLAY_SHARDS, SAMPLES, check_schema

Row = dict[str, Any]
"""A row of SAMPLES."""

Result = TypeVar("Result")

_THREADS = 8


@dataclass(frozen=True, eq=False)
class Reader:
    """A manifest whose files are read once, when they are asked for."""

    manifest: Manifest
    _tables: dict[str, pa.Table] = field(default_factory=dict)

    def samples(self, shard_id: int) -> pa.Table:
        """All samples of a shard.

        Raises:
            VerificationError: there are none, or the file is not the one that was written.
        """
        name = samples_name(shard_id)
        if name not in self.manifest.header["files"]:
            raise VerificationError(f"{self.manifest.path(name)} is not in manifest.json; run cptsel verify")
        return self._table(name, SAMPLES)

    def shard(self, shard_id: int) -> dict[str, Any]:
        """The row of ``shards.parquet``.

        Raises:
            VerificationError: there is none, or the file is not the one that was written.
        """
        table = self._table(SHARDS, REPLAY_SHARDS)
        rows = table.filter(pc.equal(table["shard_id"], shard_id)).to_pylist()
        if len(rows) != 1:
            path = self.manifest.path(SHARDS)
            raise VerificationError(f"{path}: lists shard {shard_id} {len(rows)} times, not once; run cptsel verify")
        return dict(rows[0])

    def schedule(self, phase: int, epoch: int, schema: pa.Schema) -> pa.Table:
        """Columns of the schedule of one epoch of a phase.

        Raises:
            VerificationError: there is none, or the file is not the one that was written.
        """
        name = self.manifest.schedule_files().get((phase, epoch))
        if name is None:
            directory = self.manifest.directory
            raise VerificationError(f"{directory}: has no schedule of phase {phase}, epoch {epoch}; run cptsel verify")
        return _checked(self.manifest, name, schema)

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        if name not in self._tables:
            self._tables[name] = _checked(self.manifest, name, schema)
        return self._tables[name]


def _checked(manifest: Manifest, name: str, schema: pa.Schema) -> pa.Table:
    """Columns of a data file, which must be the one that was written."""
    try:
        table = manifest.table(name, schema.names)
    except pa.ArrowException as error:
        detail = " ".join(str(error).split())
        raise VerificationError(f"{manifest.path(name)}: can't be read as Parquet ({detail}); restore it") from error
    if problem := check_schema(table.schema, schema):
        raise VerificationError(f"{manifest.path(name)}: {problem}; run cptsel verify")
    return table


def narrow(manifest: Manifest, shard_id: int, columns: list[str]) -> pa.Table:
    """Some columns of the samples of a shard, and nothing else of the file; pages are held against their checksums.

    Raises:
        UsageError: the file is missing or damaged.
        VerificationError: a column is missing or of another type.
    """
    path = manifest.path(samples_name(shard_id))
    table = io.read_parquet(path, columns)
    if problem := check_schema(table.schema, pa.schema([SAMPLES.field(name) for name in columns])):
        raise VerificationError(f"{path}: {problem}; run cptsel verify")
    return table


def of_shards(
    manifest: Manifest, look: Callable[[int], Result], progress: Progress | None, what: str
) -> Iterator[tuple[int, Result]]:
    """``look(shard_id)`` of every shard with samples, in their order, by several threads.

    What has not begun when the caller has seen enough is left out. ``progress`` counts the shards as ``what``.
    """
    files = list(manifest.sample_files())
    pool = ThreadPoolExecutor(max_workers=_THREADS)
    try:
        found = [(shard_id, pool.submit(look, shard_id)) for shard_id in files]
        found.reverse()  # what was handed on is let go of
        while found:
            shard_id, future = found.pop()
            yield shard_id, future.result()
            if progress:
                progress(len(files) - len(found), len(files), what)
    finally:
        pool.shutdown(cancel_futures=True)
