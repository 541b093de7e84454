"""Units: bounded parts of a shard's chosen samples, each of which one worker reads, computes and writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cptsel.pipeline.artifacts.manifest import Manifest, parse_table, read_data_file, source_uri
from cptsel.pipeline.artifacts.texts import WINDOW_COLUMNS, Row, check_shard, checked_texts, rows_by_document
from cptsel.pipeline.artifacts.token_ids import TokenIds
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.kernels.sampling.weights import played_weights

_COLUMNS = ["sample_id", *WINDOW_COLUMNS, "n_tokens", "weight", "loss_weight", "repeat", "phase"]


@dataclass(frozen=True)
class Unit:
    """Chosen samples of consecutive documents of a shard.

    Attributes:
        shard: its row of ``shards.parquet``.
        uri: where it lies now.
        samples: its samples file; sha256: that file's hash.
        part: number of the unit in the shard.
        first, last: row_index of its first and last document.
        count: samples; tokens: of these, predicted.
    """

    shard: dict[str, Any]
    uri: str
    samples: str
    sha256: str
    part: int
    first: int
    last: int
    count: int
    tokens: int

    @property
    def name(self) -> str:
        """Of its file, without suffix."""
        return f"{self.shard['shard_id']:06d}-{self.part:05d}"


@dataclass(frozen=True)
class Window:
    """A chosen sample as the model sees it.

    Attributes:
        sample_id, row_index, token_start: of the sample.
        ids: int32, its own token ids.
        n_tokens: that are predicted.
        weight: what each of these counts.
    """

    sample_id: str
    row_index: int
    token_start: int
    ids: np.ndarray
    n_tokens: int
    weight: float


@dataclass(frozen=True)
class ChosenSamples:
    """Which samples of a manifest count, and how much.

    ``weights`` is None (all, alike), ``mass`` (``weight``: how many tokens of the corpus a token stands for) or
    ``played`` (what a token counts in the trainer's loss, see ``played_weights``). A sample that is in several phases
    is there once, with the sum of its weights.
    """

    realisation: str
    weights: str | None

    def rows(self, data: bytes) -> list[Row]:
        """Rows of a samples file with a weight above 0, as ``counts``; by place in the corpus, each sample once."""
        table = parse_table(data, _COLUMNS)
        columns = {name: table[name].to_numpy() for name in ("weight", "loss_weight", "repeat")}
        if self.weights is None:
            counts = np.ones(len(table))
        elif self.weights == "mass":
            counts = columns["weight"]
        else:
            counts = played_weights(self.realisation, **columns)
        found: dict[str, Row] = {}
        rows = zip(table.to_pylist(), counts.tolist(), strict=True)
        for row, counted in sorted(
            rows, key=lambda pair: (pair[0]["row_index"], pair[0]["token_start"], pair[0]["phase"])
        ):
            there = found.setdefault(row["sample_id"], {**row, "counts": 0.0})
            there["counts"] = 1.0 if self.weights is None else there["counts"] + counted
        return [row for row in found.values() if row["counts"] > 0]


@dataclass(frozen=True)
class ReadWindows:
    """Unit → its windows, with the token ids that were embedded."""

    chosen: ChosenSamples
    text_field: str
    tokens: TokenIds
    prefixed: bool

    def __call__(self, unit: Unit, model: str) -> list[Window]:
        """Read, check and tokenise; ``model`` is the folder of the tokenizer on this machine.

        Raises:
            BadInputError: the corpus can't be read.
            VerificationError: the corpus or the manifest is not what was embedded and selected.
        """
        rows = [
            row
            for row in self.chosen.rows(read_data_file(unit.samples, unit.sha256))
            if unit.first <= row["row_index"] <= unit.last
        ]
        by_document = rows_by_document(rows)
        check_shard(unit.uri)
        texts = checked_texts(unit.uri, unit.shard, self.text_field, by_document)
        tokens = self.tokens if self.tokens.tokenizer is None else replace(self.tokens, tokenizer=model)
        for row, ids in tokens.of_windows(texts, by_document, unit.uri):
            del row["content"]
            row["ids"] = np.asarray(ids, dtype=np.int32)
        return [self._window(unit, row) for row in rows]

    def _window(self, unit: Unit, row: Row) -> Window:
        predicted = len(row["ids"]) - (not self.prefixed)
        if row["n_tokens"] != predicted:
            raise VerificationError(
                f"{unit.samples}: sample {row['sample_id']} has n_tokens {row['n_tokens']}, but the model predicts "
                f"{predicted} of its tokens; run cptsel verify on the manifest"
            )
        return Window(
            row["sample_id"], row["row_index"], row["token_start"], row["ids"], row["n_tokens"], row["counts"]
        )


def plan_units(manifest: Manifest, chosen: ChosenSamples, root: str | None, unit_tokens: int) -> list[Unit]:
    """All units, by shard and part. Reads every samples file.

    Args:
        manifest: of the samples.
        chosen: which of them count.
        root: where the corpus lies now; None where it was embedded.
        unit_tokens: a unit ends with the document that brings it to so many predicted tokens.

    Raises:
        VerificationError: a samples file is not the one that was written.
    """
    files, units = manifest.sample_files(), []
    for shard in manifest.shards().to_pylist():
        if shard["shard_id"] not in files:
            continue
        name = files[shard["shard_id"]]
        path, sha256 = manifest.path(name), manifest.header["files"][name]["sha256"]
        for part, rows in enumerate(_parts(chosen.rows(read_data_file(path, sha256)), unit_tokens)):
            units.append(
                Unit(
                    shard=shard,
                    uri=source_uri(shard, root),
                    samples=path,
                    sha256=sha256,
                    part=part,
                    first=rows[0]["row_index"],
                    last=rows[-1]["row_index"],
                    count=len(rows),
                    tokens=sum(row["n_tokens"] for row in rows),
                )
            )
    return units


def _parts(rows: Sequence[Row], unit_tokens: int) -> Iterator[list[Row]]:
    """Rows of whole documents, so many tokens a part."""
    part: list[Row] = []
    tokens = 0
    for row in rows:
        if tokens >= unit_tokens and row["row_index"] != part[-1]["row_index"]:
            yield part
            part, tokens = [], 0
        part.append(row)
        tokens += row["n_tokens"]
    if part:
        yield part
