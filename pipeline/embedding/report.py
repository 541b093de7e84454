"""The end of an embedding run: its rejects, whether the damage is too great, and the summary."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.damage import run_warnings
from cptsel.pipeline.artifacts.run import pool_totals
from cptsel.pipeline.artifacts.shard_range import ShardRange, listed
from cptsel.pipeline.corpus.shards import Shard
from cptsel.pipeline.corpus.types import BENIGN
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.results import Results
from cptsel.pipeline.embedding.units import unit_path
from cptsel.pipeline.errors import BadInputError
from cptsel.pipeline.results import EmbedResult
from cptsel.pipeline.summary import Table, counted
from cptsel.schemas.headers import RunHeader

# Rejects after which rows may be lost without being counted; their shards are named in a warning.
BREAKS = frozenset(
    {
        "truncated_stream",
        "corrupt_stream",
        "trailing_garbage",
        "wrong_format",
        "unreadable_arrow",
        "unreadable_index",
        "unreadable_mds",
        "unreadable_parquet",
        "unreadable_tar",
    }
)
SHOWN = 5


class Reject(NamedTuple):
    """Where a row, or the rest of a file, was rejected, and why."""

    uri: str
    row: int
    reason: str
    detail: str | None = None


@dataclass(frozen=True)
class Rejects:
    """Rejects of a run, rows and windows together.

    Attributes:
        reasons: how many for each reason, sorted by reason.
        breaks: those behind which more may be lost.
        first: the first that is damage; None where there is none.
    """

    reasons: dict[str, int]
    breaks: list[Reject]
    first: Reject | None = None

    def listed(self, but: Collection[str] = ()) -> str:
        """The reasons, ``but`` some, in a phrase, the most frequent first."""
        found = [(reason, count) for reason, count in self.reasons.items() if reason not in but]
        return ", ".join(f"{count} {reason}" for reason, count in sorted(found, key=lambda i: -i[1]))

    def damaged(self, rows_rejected: int) -> int:
        """Rejected rows that are damage."""
        return rows_rejected - sum(self.reasons.get(reason, 0) for reason in BENIGN)

    def begin(self) -> str:
        """Where they begin, as a clause of an error; empty where there is no damage."""
        if self.first is None:
            return ""
        uri, row, reason, detail = self.first
        if reason in BREAKS and detail:
            return f"{uri} can't be read from row {row} on ({detail}); "
        return f"the first is row {row} of {uri} ({reason}); "

    def remedy(self, out: str) -> str:
        """Where they begin, where to look, and what to do, as the end of an error's sentence."""
        see = f"see {io.join(out, 'rejects')}, mend the corpus, or allow more with --max-bad-fraction"
        return self.begin() + see

    def warnings(self, useless: Iterable[str] = ()) -> list[str]:
        """A sentence about each broken file, up to a few, and one about everything that was rejected.

        Args:
            useless: uris of files of which no row could be used, in order.
        """
        breaks = list(dict.fromkeys(broken.uri for broken in self.breaks))
        found = [
            f"{uri}: {reason} at row {row}; what comes after it in this file is lost{f': {detail}' if detail else ''}"
            for uri, row, reason, detail in self.breaks[:SHOWN]
        ]
        if len(self.breaks) > SHOWN:
            found.append(f"and {counted(len(self.breaks) - SHOWN, 'more file')} that broke off")
        whole = [uri for uri in useless if uri not in breaks]
        found += [f"{uri}: none of its rows could be used" for uri in whole[:SHOWN]]
        if len(whole) > SHOWN:
            found.append(f"and {counted(len(whole) - SHOWN, 'more file')} of which no row could be used")
        return [*found, f"rejected: {self.listed()}"] if set(self.reasons) - BENIGN else found


def read_rejects(out: str, shards: list[Shard], units: Iterable[tuple[int, int]]) -> Rejects:
    """Gather the rejects of units, named by shard_id and block."""
    reasons: Counter[str] = Counter()
    breaks: list[Reject] = []
    first: Reject | None = None
    for shard_id, block in units:
        table = io.read_parquet(unit_path(out, "rejects", shard_id, block), ["row_index", "reason", "detail"])
        reasons.update(table["reason"].to_pylist())
        damage = table.filter(pc.invert(pc.is_in(table["reason"], pa.array(sorted(BENIGN)))))
        broken = damage.filter(pc.is_in(damage["reason"], pa.array(sorted(BREAKS))))
        uri = shards[shard_id].uri
        breaks += [Reject(uri, *row.values()) for row in broken.to_pylist()]
        if first is None and damage.num_rows:
            first = Reject(uri, *damage.slice(0, 1).to_pylist()[0].values())
    return Rejects(dict(sorted(reasons.items())), breaks, first)


def check_damage(
    config: EmbedConfig,
    shards: list[Shard],
    lost: dict[int, int],
    totals: dict[str, int],
    rejects: Rejects,
) -> None:
    """Hold the damage against ``--max-bad-fraction``: by rows, by windows, and by the bytes that were lost.

    Args:
        config: of the run.
        shards: of the corpus.
        lost: by shard, see ``lost_bytes``.
        totals: over all units.
        rejects: of all units.

    Raises:
        BadInputError: more than the allowed share, or nothing was embedded.
    """
    allowed = config.max_bad_fraction
    bad = rejects.damaged(totals["rows_rejected"])
    if not totals["windows_embedded"] and set(rejects.reasons) == {"missing_text"}:
        raise BadInputError(
            f"none of {bad} rows has a text in {config.text_field}; {rejects.begin()}name the field or column that "
            "holds it by --text-field"
        )
    remedy = rejects.remedy(config.out)
    drawn = totals["rows_read"] - totals["rows_not_drawn"]
    if bad > allowed * drawn:
        raise BadInputError(
            f"{bad} of {drawn} rows were rejected ({rejects.listed(BENIGN)}), more than the allowed share "
            f"{allowed:g}; {remedy}"
        )
    if totals["windows_rejected"] > allowed * totals["windows"]:
        raise BadInputError(
            f"{totals['windows_rejected']} of {totals['windows']} windows were rejected ({rejects.listed()}), more "
            f"than the allowed share {allowed:g}; {remedy}"
        )
    share = sum(lost.values()) / max(1, sum(shard.bytes for shard in shards))
    if share > allowed:
        worst = max((shard for shard in shards if shard.shard_id in lost), key=lambda shard: lost[shard.shard_id])
        raise BadInputError(
            f"{worst.uri}: {lost[worst.shard_id]:,} of its {worst.bytes:,} bytes are lost ({share:.1%} of the corpus's "
            f"bytes with those of all {len(lost):,} damaged shards), more than the allowed share {allowed:g}; {remedy}"
        )
    if not totals["windows_embedded"]:
        if 0 < totals["rows_not_drawn"] == totals["rows_read"]:
            raise BadInputError(
                f"{config.out}: the pool drew none of {totals['rows_read']:,} rows; ask for a larger one"
            )
        raise BadInputError(
            f"{config.out}: no sample was embedded ({rejects.listed() or 'the corpus is empty'}); {remedy}"
        )


def lost_bytes(shards: list[Shard], by_shard: dict[int, dict[str, int]]) -> dict[int, int]:
    """Bytes, as stored, that are lost of each damaged shard; all of one of which no row could be used.

    Of a compressed member that ends too early all bytes count: how much is missing, nothing tells.
    """
    found = {}
    for shard in shards:
        counts = by_shard[shard.shard_id]
        nothing = is_useless(counts)
        if nothing or counts["bytes_lost"]:
            found[shard.shard_id] = shard.bytes if nothing else min(shard.bytes, counts["bytes_lost"])
    return found


def is_useless(counts: dict[str, int]) -> bool:
    """Whether a shard, by its counts, has rows of which none could be used."""
    usable = counts["rows_kept"] + counts["rows_excluded"] + counts["rows_not_drawn"]
    return counts["rows_rejected"] > 0 and usable == 0


def summary(config: EmbedConfig, status: str, header: RunHeader, warnings: list[str]) -> EmbedResult:
    """What the command prints.

    Args:
        config: of the run.
        status: its first word.
        header: run.json with totals.
        warnings: sentences.
    """
    totals = header["totals"]
    folder = io.join(config.out, "embeddings")
    stats = {} if status == "already done" else io.read_json(io.join(config.out, "stats.json"))
    tables = []
    if totals["rejects"]:
        rows = [[reason, count] for reason, count in totals["rejects"].items()]
        tables.append(Table(title="Rejects", columns=["reason", "count"], rows=rows))
    return EmbedResult(
        out=config.out,
        status=status,
        shards=header["corpus"]["shards"],
        rows_read=totals["rows_read"],
        rows_kept=totals["rows_kept"],
        rows_rejected=totals["rows_rejected"],
        rows_excluded=totals["rows_excluded"],
        rows_not_drawn=totals["rows_not_drawn"] if header["options"].get("pool") else None,
        **pool_totals(header),
        shards_damaged=totals["shards_damaged"],
        bytes_lost=totals["bytes_lost"],
        rows_with_special_tokens=totals["rows_special"],
        samples=totals["windows_embedded"],
        tokens=totals["tokens"],
        bytes_of_embeddings=sum(io.size(io.join(folder, name)) for name in io.list_names(folder, ".parquet")),
        seconds=stats.get("seconds"),
        tokens_taken_over=stats.get("tokens_taken_over"),
        tokens_per_second=stats.get("tokens_per_second"),
        tables=tables,
        warnings=[*warnings, *run_warnings(header), *_special_warning(totals)]
        + [_no_group(name) for name in _without_value(folder, list(config.group_by))],
    )


def range_summary(
    config: EmbedConfig,
    part: ShardRange,
    shards: int,
    results: Results,
    left: list[int],
    seconds: float,
    header: RunHeader,
) -> EmbedResult:
    """What the command prints that has done a range while others are not done.

    Args:
        config: of the run.
        part: the range.
        shards: in it.
        results: of its units.
        left: ranges that are not done.
        seconds: of this call.
        header: run.json, before it has totals.
    """
    counts = results.totals()
    return EmbedResult(
        out=config.out,
        status=f"range {part} done",
        shards=shards,
        rows_read=counts["rows_read"],
        rows_kept=counts["rows_kept"],
        rows_rejected=counts["rows_rejected"],
        rows_excluded=counts["rows_excluded"],
        rows_not_drawn=counts["rows_not_drawn"] if header["options"].get("pool") else None,
        samples=counts["windows_embedded"],
        tokens=counts["tokens"],
        seconds=round(seconds, 3),
        tokens_taken_over=results.taken_tokens if config.grow else None,
        tokens_per_second=results.speed(seconds),
        ranges_not_done=f"{listed(left)} (of 0-{part.count - 1})",
    )


def _special_warning(totals: dict[str, Any]) -> list[str]:
    if not totals["rows_special"]:
        return []
    return [
        f"the text of {counted(totals['rows_special'], 'row')} spells a special token of the model, and became "
        "that token's id, as is the tokenizer's default; --split-special-tokens treats it as text"
    ]


def _no_group(column: str) -> str:
    return f"--group-by {column}: no row has it, so all samples are one group"


def _without_value(folder: str, columns: list[str]) -> list[str]:
    """Those of the columns that are null in all embeddings; a column is dropped at the first file with a value."""
    for name in io.list_names(folder, ".parquet"):
        if not columns:
            break
        table = io.read_parquet(io.join(folder, name), columns)
        columns = [column for column in columns if table[column].null_count == len(table)]
    return columns
