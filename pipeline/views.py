"""Embedding runs and replay manifests from Python: what is in them, as tables and vectors, read when it is asked for.

Nothing is written, and nothing is computed but sums. What is read is held against its checksums, as every command does.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.embeddings import read_directions, read_rows
from cptsel.pipeline.artifacts.manifest import SHARDS, Manifest, load_manifest, source_uri
from cptsel.pipeline.artifacts.run import EmbeddingRuns, RunShard, open_runs
from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.lookup.texts import windows
from cptsel.pipeline.summary import escaped, html_table, plain
from cptsel.schemas.arrow import SAMPLES
from cptsel.schemas.headers import ManifestHeader, RunHeader

_ROWS_SHOWN = 20
_PLACE = ["shard_id", "row_index", "byte_offset", "byte_length", "char_start", "char_end", "content_hash"]
_PLACE_OF_IDS = [*_PLACE, "token_start", "token_count"]


def open_run(path: str) -> "Run":
    """Open a finished embedding run.

    Args:
        path: the output of ``cptsel embed``, on any filesystem that Beam knows.

    Raises:
        UsageError: it is none, or not finished.
        VerificationError: its small files are not what was written.
    """
    return Run(open_runs([path]))


def open_replay(path: str) -> "Replay":
    """Open a replay manifest.

    Args:
        path: the output of ``cptsel select`` or ``cptsel order``.

    Raises:
        UsageError: it is none, not finished, or of a version that this release can't read.
        VerificationError: ``manifest.json`` is not what was written.
    """
    return Replay(load_manifest(path))


class _Shown(ABC):
    """What prints itself as a heading and a few facts, in a terminal and in a notebook."""

    @abstractmethod
    def _facts(self) -> tuple[str, dict[str, Any]]:
        """Heading and facts by name."""

    def _table(self) -> pa.Table | None:
        """What a notebook shows below the facts."""
        return None

    def __repr__(self) -> str:
        title, facts = self._facts()
        return "\n".join([title, *(f"  {name}: {plain(value)}" for name, value in facts.items())])

    def _repr_html_(self) -> str:
        """The same as HTML, for notebooks; every value is escaped."""
        title, facts = self._facts()
        parts = [f"<p><strong>{escaped(title)}</strong></p>", html_table([], list(facts.items()))]
        table = self._table()
        if table is not None:
            rows = [list(row.values()) for row in table.slice(0, _ROWS_SHOWN).to_pylist()]
            parts.append(html_table(table.column_names, rows))
            if table.num_rows > _ROWS_SHOWN:
                parts.append(f"<p>and {table.num_rows - _ROWS_SHOWN:,} more</p>")
        return "".join(parts)


@dataclass(frozen=True, eq=False, repr=False)
class Run(_Shown):
    """An embedding run: one row a sample, with its vector. Small files are read when it is opened, all else later."""

    _runs: EmbeddingRuns = field(repr=False)

    @property
    def path(self) -> str:
        """Where it lies."""
        return self._runs.directories[0]

    @property
    def header(self) -> RunHeader:
        """``run.json``."""
        return self._runs.headers[0]

    @cached_property
    def shards(self) -> pa.Table:
        """The corpus files that were embedded (``shards.parquet``, schemas.arrow.RUN_SHARDS), in their order."""
        return io.read_parquet(io.join(self.path, "shards.parquet")).sort_by("shard_id")

    @cached_property
    def groups(self) -> pa.Table:
        """Samples and predicted tokens by the columns of ``--group-by``; one row where there are none.

        Reads these narrow columns of all samples.
        """
        names = list(self._runs.groups)
        return _summed(self.samples([*names, "n_tokens"]), names)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of ``samples``: all of a sample but its vectors."""
        return [field.name for field in self._runs.schema if not pa.types.is_fixed_size_list(field.type)]

    def samples(self, columns: Sequence[str] | None = None, shard_id: int | None = None) -> pa.Table:
        """Columns of all samples or those of a shard, in corpus order, without vectors; groups are strings.

        Args:
            columns: of ``columns``; all by default. The table is held, so name what you need of a large run.
            shard_id: of ``shards``.

        Raises:
            UsageError: no such column or shard.
            BadInputError: a file is not the one that was embedded.
        """
        wanted = _named(self.columns if columns is None else list(columns), self.columns)
        tables = [read_rows(shard, self._runs.schema, wanted) for shard in self._shards(shard_id)]
        return pa.concat_tables([table for table in tables if table.num_rows] or tables[:1])

    def vectors(self, shard_id: int, column: str = "direction") -> np.ndarray:
        """Vectors of all samples of a shard, in the order of ``samples``.

        Args:
            shard_id: of ``shards``.
            column: ``direction``, the unit sketch of a sample's gradient, or ``validation``, another sketch of it.

        Returns:
            (n, k) float32.

        Raises:
            UsageError: no such column or shard.
            BadInputError: a file is not the one that was embedded.
        """
        (shard,) = self._shards(shard_id)
        found = list(read_directions(shard, self._runs.schema, self._vector(column)))
        k = self._runs.schema.field(column).type.list_size
        return np.concatenate(found) if found else np.zeros((0, k), np.float32)

    def batches(
        self, columns: Sequence[str] = ("sample_id",), column: str = "direction", shard_id: int | None = None
    ) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Samples with their vectors, one embedding file after the other, which is what is held.

        Args:
            columns: of ``columns``.
            column: as in ``vectors``.
            shard_id: of ``shards``; all by default.

        Yields:
            Rows (n) and their vectors (n, k) float32, in corpus order.

        Raises:
            UsageError: no such column or shard.
            BadInputError: a file is not the one that was embedded.
        """
        wanted, vector = _named(list(columns), self.columns), self._vector(column)
        for shard in self._shards(shard_id):
            for path, count, footer in zip(shard.files, shard.rows, shard.footers, strict=True):
                one = replace(shard, files=(path,), rows=(count,), footers=(footer,))
                for directions in read_directions(one, self._runs.schema, vector):
                    yield read_rows(one, self._runs.schema, wanted), directions

    def _shards(self, shard_id: int | None) -> Sequence[RunShard]:
        if shard_id is None:
            return self._runs.shards
        if not 0 <= shard_id < len(self._runs.shards):
            raise UsageError(f"{self.path} has no shard {shard_id}; name one of 0 to {len(self._runs.shards) - 1}")
        return [self._runs.shards[shard_id]]

    def _vector(self, column: str) -> str:
        vectors = [field.name for field in self._runs.schema if pa.types.is_fixed_size_list(field.type)]
        return _named([column], vectors)[0]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        header, shards = self.header, self._runs.shards
        return "Embedding run", {
            "path": self.path,
            "run_id": header.get("run_id"),
            "model": header["model"]["source"],
            "corpus": header["corpus"]["root"],
            "shards": len(shards),
            "samples": sum(shard.samples for shard in shards),
            "tokens": sum(shard.n_tokens for shard in shards),
            "vectors": f"{header['projection']['k']} numbers of the {header['projection']['gradient']} gradient",
            "groups": ", ".join(self._runs.groups) or None,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Replay(_Shown):
    """A replay manifest: one row a chosen sample and phase; after ``order``, schedules. Read when it is asked for."""

    _manifest: Manifest = field(repr=False)

    @property
    def path(self) -> str:
        """Where it lies."""
        return self._manifest.directory

    @property
    def manifest_id(self) -> str:
        """The name of the whole, by what is in it."""
        return self._manifest.manifest_id

    @property
    def header(self) -> ManifestHeader:
        """``manifest.json``."""
        return self._manifest.header

    @property
    def phases(self) -> list[int]:
        """Numbers of the phases."""
        return self._manifest.phases

    @cached_property
    def shards(self) -> pa.Table:
        """The corpus files, with what was chosen of each (schemas.arrow.REPLAY_SHARDS)."""
        return self._manifest.table(SHARDS)

    @cached_property
    def groups(self) -> pa.Table:
        """What every group is, was to get and got, a row a group and phase, as ``manifest.json`` has it."""
        return pa.Table.from_pylist([{"phase": 0, **entry} for entry in self.header["groups"]])

    def samples(
        self, columns: Sequence[str] | None = None, phase: int | None = None, shard_id: int | None = None
    ) -> pa.Table:
        """Chosen samples by shard (schemas.arrow.SAMPLES); groups and methods are strings.

        Args:
            columns: all by default.
            phase: all by default.
            shard_id: all by default. A shard of which nothing was chosen has no rows.

        Raises:
            UsageError: no such column, phase or shard.
            VerificationError: a file is not the one that was written.
        """
        wanted = _named(SAMPLES.names if columns is None else list(columns), SAMPLES.names)
        files = self._manifest.sample_files()
        if phase is not None and phase not in self.phases:
            raise UsageError(f"{self.path} has no phase {phase}; name one of {', '.join(map(str, self.phases))}")
        if shard_id is not None:
            if shard_id not in self.shards["shard_id"].to_pylist():
                raise UsageError(f"{self.path} has no shard {shard_id}; see its shards")
            files = {number: name for number, name in files.items() if number == shard_id}
        tables = [SAMPLES.empty_table()] if not files else []
        for name in files.values():
            table = self._manifest.table(name, list(dict.fromkeys([*wanted, "phase"])))
            tables.append(table if phase is None else table.filter(pc.equal(table["phase"], phase)))
        return pa.concat_tables([_strings(table.select(wanted)) for table in tables])

    def schedule(self, phase: int = 0, epoch: int = 0) -> pa.Table:
        """Which rank visits which shard when, in an epoch of a phase (schemas.arrow.SCHEDULE).

        Raises:
            UsageError: there is none.
            VerificationError: the file is not the one that was written.
        """
        files = self._manifest.schedule_files()
        if (phase, epoch) not in files:
            known = ", ".join(f"{key[0]} and {key[1]}" for key in files)
            remedy = f"name a phase and epoch of {known}" if known else "run cptsel order, which writes one"
            raise UsageError(f"{self.path} has no schedule of phase {phase} and epoch {epoch}; {remedy}")
        return self._manifest.table(files[phase, epoch])

    def texts(
        self, samples: pa.Table | None = None, root: str | None = None
    ) -> Iterator[tuple[dict[str, Any], Content]]:
        """Chosen samples with their texts, read from the corpus and held against their hashes.

        Those of a corpus of token ids are int32 arrays of ids.
        A document is held at a time, and the rows of a shard.

        Args:
            samples: rows of ``samples``, such as a slice; all by default. They need the columns that locate a sample.
            root: where the corpus lies now; where it was embedded by default.

        Yields:
            The row, as a dict of the table's columns, and its text or ids: by shard, and by row of the corpus.

        Raises:
            UsageError: ``samples`` lacks a column.
            BadInputError: a shard or a row of it can't be read.
            VerificationError: a text is not the one that was embedded.
        """
        if samples is not None:
            _named(_PLACE_OF_IDS if self._manifest.of_ids else _PLACE, samples.column_names)
        shards = {row["shard_id"]: row for row in self.shards.to_pylist()}
        numbers = pc.unique(samples["shard_id"]).to_pylist() if samples is not None else self._manifest.sample_files()
        for number in sorted(numbers):
            if samples is None:
                mine = self.samples(shard_id=number)
            else:
                mine = samples.filter(pc.equal(samples["shard_id"], number))
            uri = source_uri(shards[number], root)
            if not io.exists(uri):
                raise BadInputError(f"{uri} is missing; restore it, or give root, where the corpus lies now")
            yield from windows(uri, shards[number], self._manifest.text_field, mine.to_pylist())

    def _facts(self) -> tuple[str, dict[str, Any]]:
        header = self.header
        selection, totals, order = header["selection"], header["totals"], header["order"]
        ordered = order["kind"] == "priority"
        return "Ordered replay manifest" if ordered else "Replay manifest", {
            "path": self.path,
            "manifest_id": self.manifest_id,
            "method": selection["method"],
            "corpus": header["corpus"]["root"],
            "samples": f"{totals['selected_samples']:,} of {totals['population_samples']:,}",
            "tokens": totals["selected_tokens"],
            "plays in an epoch": totals["plays"],
            "tokens played in an epoch": totals["replay_tokens"],
            "weights realised by": self._manifest.realisation,
            "phases": len(self.phases),
            **({"epochs": order["epochs"], "ranks": order["world_size"]} if ordered else {}),
        }

    def _table(self) -> pa.Table:
        names = ["phase", "group", "population_mass", "target_mass", "selected_samples", "replay_tokens"]
        return self.groups.select(names)


def _named(names: list[str], known: Sequence[str]) -> list[str]:
    """The names, if all are known. Raises UsageError at the first that is not."""
    for name in names:
        if name not in known:
            raise UsageError(f"there is no column {name!r}; there are {', '.join(known)}")
    return names


def _strings(table: pa.Table) -> pa.Table:
    """Columns of dictionaries as strings, which have one type in all files."""
    types = [pa.string() if pa.types.is_dictionary(column.type) else column.type for column in table.schema]
    return table.cast(pa.schema([column.with_type(type) for column, type in zip(table.schema, types, strict=True)]))


def _summed(table: pa.Table, names: list[str]) -> pa.Table:
    """Samples and tokens of rows with n_tokens, by some columns and in their order."""
    found = table.group_by(names).aggregate([("n_tokens", "count"), ("n_tokens", "sum")])
    found = found.select([*names, "n_tokens_count", "n_tokens_sum"]).rename_columns([*names, "samples", "tokens"])
    return found.sort_by([(name, "ascending") for name in names]) if names else found
