"""``cptsel explain``: why samples were chosen, what they stand for, and when they are played."""

from collections.abc import Sequence
from typing import Any

from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.manifest import load_manifest, source_uri
from cptsel.pipeline.artifacts.origin import open_origin
from cptsel.pipeline.artifacts.run import EmbeddingRuns
from cptsel.pipeline.config import check_read, check_values
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.threads import one_blas_thread
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.lookup.config import ExplainConfig
from cptsel.pipeline.lookup.facts import facts, finite, location
from cptsel.pipeline.lookup.finding import Found, by_name, by_text
from cptsel.pipeline.lookup.neighbours import Neighbour, Surroundings, surroundings
from cptsel.pipeline.lookup.order import Place, places, unordered
from cptsel.pipeline.lookup.reading import Reader, Row
from cptsel.pipeline.lookup.texts import excerpt, glance, texts_at_hand
from cptsel.pipeline.results import ExplainResult
from cptsel.pipeline.selection.methods import METHODS
from cptsel.pipeline.summary import Table, counted


@one_blas_thread()
def explain(config: ExplainConfig, progress: Progress | None = None) -> ExplainResult:
    """Why a sample was chosen, or those of a document, or those whose text has a phrase, and when they are played.

    Returns:
        The summary. Of every sample and phase it has a table of what is known; then one of all places in the order;
        and with runs one of the samples nearest to each, and one of those that it stands for.

    Raises:
        UsageError: an option out of range, an input that is not a finished manifest, no such sample, no sample with the
            text, a run that the manifest was not selected from, or a shard of the corpus that is missing where it must
            be read.
        BadInputError: a shard of the corpus or a file of the run can't be read.
        VerificationError: a file of the manifest, or the corpus, is not what its checksum says.
    """
    check_values(config)
    check_read(config)
    if (config.sample is None) == (config.text is None):
        what = "both were given" if config.text is not None else "neither was given"
        raise UsageError(
            f"explain takes a SAMPLE or --text, and {what}; name a sample_id, doc_key or doc_id, or a text"
        )
    manifest = load_manifest(config.replay)
    runs = open_origin(manifest, config.run) if config.run else None
    reader = Reader(manifest)
    if config.text is not None:
        found = by_text(reader, config.text, config.root, config.most, progress)
        if not found.rows:
            raise UsageError(
                f"--text {config.text!r}: no sample that {manifest.directory} chose has this text, letter by letter; "
                "try a shorter phrase"
            )
    else:
        found = by_name(reader, str(config.sample), config.most, progress)
    warnings = manifest_warnings(manifest.header)
    if why := unordered(manifest):
        warnings.append(f"{manifest.directory}: {why}")
    plays = [] if why else places(reader, found.rows, progress)
    around = None if runs is None else _around(reader, runs, found.rows, config.neighbours)
    near = [] if around is None else [n.row for one in around for n in (*one.nearest, *one.represented)]
    texts, missing = _texts(reader, found, near, config.root)
    tables = [
        _sample(reader, row, config, texts, None if around is None else around[index])
        for index, row in enumerate(found.rows)
    ]
    tables += [_places(found.rows, plays)] if plays else []
    tables += _neighbour_tables(found.rows, around, texts, len(manifest.phases)) if around is not None else []
    return ExplainResult(
        out=manifest.directory,
        status="found",
        manifest_id=manifest.manifest_id,
        found_by=found.by,
        samples=len({row["sample_id"] for row in found.rows}),
        others=_others(found),
        tables=tables,
        warnings=warnings + missing,
    )


def _by_shard(rows: Sequence[Row]) -> dict[int, list[int]]:
    """Places of rows by their shard."""
    found: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault(row["shard_id"], []).append(index)
    return found


def _around(reader: Reader, runs: EmbeddingRuns, rows: Sequence[Row], neighbours: int) -> list[Surroundings]:
    """What lies around each of some samples."""
    found = [Surroundings() for _ in rows]
    for mine in _by_shard(rows).values():
        told = surroundings(reader, runs, [rows[index] for index in mine], neighbours)
        for index, one in zip(mine, told, strict=True):
            found[index] = one
    return found


def _texts(reader: Reader, found: Found, near: Sequence[Row], root: str | None) -> tuple[dict[str, str], list[str]]:
    """Texts of samples and of what lies near them, by sample_id, and why some are missing."""
    texts, warnings = dict(found.texts), []
    rows = list({row["sample_id"]: row for row in (*found.rows, *near)}.values())
    for shard_id, mine in _by_shard(rows).items():
        unread = [rows[index] for index in mine if rows[index]["sample_id"] not in texts]
        read, missing = texts_at_hand(reader.manifest, reader.shard(shard_id), unread, root)
        texts |= read
        warnings += [missing] if missing else []
    return texts, warnings


def _places(rows: Sequence[Row], plays: Sequence[Sequence[Place]]) -> Table:
    """Every play of every sample."""
    return Table(
        title="Places in the order",
        columns=["sample_id", "phase", "epoch", "rank", "position", "pass"],
        rows=[
            [row["sample_id"], place.phase, place.epoch, place.rank, place.position, place.number]
            for row, mine in zip(rows, plays, strict=True)
            for place in mine
        ],
    )


def _others(found: Found) -> str | None:
    """How many more there are, None where these are all."""
    if found.more == 0:
        return None
    return "perhaps, raise --most" if found.more is None else f"{found.more:,}, raise --most"


def _sample(
    reader: Reader, row: Row, config: ExplainConfig, texts: dict[str, str], around: Surroundings | None
) -> Table:
    """What is known of a sample, a line each."""
    manifest, shard = reader.manifest, reader.shard(row["shard_id"])
    text = texts.get(row["sample_id"])
    shown = None if text is None else excerpt(text, config.text)
    told = facts(manifest, row, shard, source_uri(shard, config.root), shown)
    method = METHODS.get(row["method"])
    if method is not None:
        told["method"] = f"{row['method']} ({method.summary})"
    if around is not None:
        told["nearest to it"] = (
            f"{counted(around.samples, 'sample')} of its group in its shard, {around.tokens:,.0f} tokens"
        )
    title = f"Sample {row['sample_id']}" + (f", phase {row['phase']}" if len(manifest.phases) > 1 else "")
    return Table(title=title, columns=["what", "value"], rows=[[name, value] for name, value in told.items()])


def _neighbour_tables(
    rows: Sequence[Row], around: Sequence[Surroundings], texts: dict[str, str], phases: int
) -> list[Table]:
    """Neighbours of all samples, and what they stand for; whose they are is said where there are several."""
    of = (["sample_id"] if len({row["sample_id"] for row in rows}) > 1 else []) + (["phase"] if phases > 1 else [])
    nearest, represented = [], []
    for row, one in zip(rows, around, strict=True):
        head = [row[name] for name in of]
        nearest += [[*head, *_neighbour(near, texts), near.chosen] for near in one.nearest]
        represented += [[*head, *_neighbour(near, texts)] for near in one.represented]
    columns = [*of, "neighbour", "cosine", "tokens", *location(rows[0]), "text"]
    return [
        Table(title="Nearest of its group in its shard", columns=[*columns, "chosen"], rows=nearest),
        Table(title="Stands for: no chosen one of its group in its shard is nearer", columns=columns, rows=represented),
    ]


def _neighbour(near: Neighbour, texts: dict[str, str]) -> list[Any]:
    """Values of a row of a neighbour, but for whose it is."""
    row, text = near.row, texts.get(near.row["sample_id"])
    cosine = finite(near.cosine)
    return [row["sample_id"], cosine, row["n_tokens"], *location(row).values(), None if text is None else glance(text)]
