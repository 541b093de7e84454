"""What an export left out: which samples, by its own plays or by the list that it was given, and how much in all."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from cptsel.pipeline.artifacts.manifest import Manifest
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.exports.checking import MEND, hash_of, samples_read
from cptsel.pipeline.exports.datasets import EXPORT
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.schemas.headers import ExportHeader


def samples_left_out(
    header: ExportHeader,
    manifest: Manifest,
    listed: frozenset[str] | None,
    shards: Collection[int],
    work: str,
    problems: Problems,
) -> frozenset[str] | None:
    """sample_ids of what the export was told to leave out; None where that can't be known.

    A format that keeps which sample a play is tells it by what is not played. Another needs the list, and one that does
    not name documents by their text, as the manifest does not have its hash.

    Args:
        header: its ``export.json``.
        manifest: that it is of.
        listed: the entries of the list that it was given; None where that is not at hand.
        shards: shard_ids that are exported.
        work: where ``check_plays`` noted the samples that are played.
        problems: where what is wrong goes.
    """
    if header["excluded"]["entries_sha256"] is None:
        return frozenset()
    format = EXPORTS[header["to"]]
    if "sample_id" in format.keeps:
        files = sum(name.endswith(format.suffix) for name in header["files"])
        return _not_played(manifest, samples_read(work, files), listed, problems)
    if listed is None:
        return None
    chosen = (row for row in _chosen(manifest) if row["shard_id"] in shards)  # export counts these alone
    rows = [(row["sample_id"], listed.intersection(_names(row))) for row in chosen]
    named = [sample for sample, by in rows if by]
    # What names nothing here may be the hash of a document's text, which the manifest does not have.
    if len(named) < header["excluded"]["samples"] and listed.difference(*(by for _, by in rows)):
        return None
    return frozenset(named)


def check_left_out(header: ExportHeader, results: Sequence[dict[str, int]], problems: Problems) -> None:
    """What is missing is as much as ``export.json`` says was left out, or less: some samples are never played."""
    said = header["excluded"]
    for key in ("lines", "tokens"):
        found = sum(result[key] for result in results)
        if dict(said)[key] != found:
            what = f"excluded.{key} is {dict(said)[key]:,}, but {found:,} that the manifest plays are not there"
            problems.add(EXPORT, None, what, MEND)
    samples = sum(result["samples"] for result in results)
    if said["samples"] < samples:
        what = f"excluded.samples is {said['samples']:,}, but {samples:,} that the manifest plays are not there"
        problems.add(EXPORT, None, what, MEND)


def _chosen(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Rows of all samples files, with the columns that name a sample."""
    columns = ["sample_id", "doc_id", "doc_key", "content_hash", "row_index", "shard_id", "repeat"]
    for name in manifest.sample_files().values():
        yield from manifest.table(name, columns).to_pylist()


def _names(row: dict[str, Any]) -> tuple[str | None, ...]:
    """By what a list may leave a sample out."""
    return (row["doc_id"], row["doc_key"], row["sample_id"], row["content_hash"].hex())


def _not_played(
    manifest: Manifest, there: set[bytes], listed: frozenset[str] | None, problems: Problems
) -> frozenset[str]:
    """Samples that an export with exclusions does not play: sample_ids.

    With the list they must be those that it names. It may also name whole documents by the hash of their text, which is
    not in the manifest; then none of a document's samples is played.
    """
    absent: dict[str, dict[str, Any]] = {}
    documents_played = set()
    for row in _chosen(manifest):
        is_there = hash_of(row["sample_id"]) in there
        named = listed is not None and not listed.isdisjoint(_names(row))
        if is_there:
            documents_played.add((row["shard_id"], row["row_index"]))
        if is_there and named:
            what = f"the list leaves out sample {row['sample_id']}, and it is played"
            problems.add(EXPORT, None, what, MEND)
        elif not is_there and (row["repeat"] > 0 or named):
            absent[row["sample_id"]] = row
    if listed is not None:
        for name, row in sorted(absent.items()):
            in_part = (row["shard_id"], row["row_index"]) in documents_played
            if listed.isdisjoint(_names(row)) and in_part:
                problems.add(EXPORT, None, f"sample {name} is not played, and the list does not leave it out", MEND)
    return frozenset(absent)
