"""``cptsel locate``: which sample is a rank's N-th play."""

from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.manifest import load_manifest, source_uri
from cptsel.pipeline.config import check_values
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.lookup.config import LocateConfig
from cptsel.pipeline.lookup.facts import facts
from cptsel.pipeline.lookup.order import play_at, unordered
from cptsel.pipeline.lookup.reading import Reader
from cptsel.pipeline.lookup.texts import excerpt, texts_at_hand
from cptsel.pipeline.results import LocateResult


def locate(config: LocateConfig, progress: Progress | None = None) -> LocateResult:
    """The sample that a rank plays at a position of an epoch, and its text if the corpus is at hand.

    With a schedule that and one samples file are read; without one, narrow columns of the samples files.

    Returns:
        The summary: the place, and what is known of the sample.

    Raises:
        UsageError: an option out of range, an input that is not a finished manifest or has no order, or no such phase,
            epoch, rank or position.
        VerificationError: a file of the manifest is not what its checksum says.
    """
    check_values(config)
    manifest = load_manifest(config.replay)
    if why := unordered(manifest):
        raise UsageError(f"{manifest.directory}: {why}; cptsel explain tells the weight by which a sample is drawn")
    reader = Reader(manifest)
    row, place = play_at(reader, config.phase, config.epoch, config.rank, config.position, progress)
    shard = reader.shard(row["shard_id"])
    texts, missing = texts_at_hand(manifest, shard, [row], config.root)
    text = texts.get(row["sample_id"])
    told = facts(manifest, row, shard, source_uri(shard, config.root), None if text is None else excerpt(text))
    known = {name.replace(" ", "_"): value for name, value in told.items()}
    return LocateResult(
        out=manifest.directory,
        status="found",
        epoch=place.epoch,
        rank=place.rank,
        position=place.position,
        number=place.number,
        **known,
        warnings=[*manifest_warnings(manifest.header), *([missing] if missing else [])],
    )
