"""The options of ``cptsel verify``, each declared once."""

from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, ReadBy, argument, option


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(Configuration):
    """Options of ``cptsel verify``."""

    directory: str = argument("Directory written by cptsel select, order, embed or export.", metavar="DIRECTORY")
    sources: bool = option(
        False,
        "Also read the corpus again and compare shard checksums and the text of every chosen sample.",
        section="Checks",
    )
    root: str | None = option(
        None,
        "Directory in which the corpus lies now, for --sources; by default where it was embedded.",
        section="Checks",
        metavar="DIR",
    )
    run: tuple[str, ...] = option(
        (),
        "Also hold every sample against this embedding run, from which the manifest was selected; repeatable.",
        section="Checks",
        metavar="RUN",
    )
    replay: str | None = option(
        None,
        "Also hold every play of an export against this manifest, from which it was exported.",
        section="Checks",
        metavar="REPLAY",
    )
    exclude: str | None = option(
        None,
        "The list that export --exclude was given, for --replay; without it, missing samples are taken for left out as "
        "far as the counts allow.",
        section="Checks",
        metavar="FILE",
        read=ReadBy("with --replay", lambda config: config.replay is not None),
    )
    expect: str | None = option(
        None,
        "The manifest_id that this must have, of a run the run_id, of an export that of its manifest: who makes all "
        "checksums anew can't keep it.",
        section="Checks",
        metavar="ID",
    )
    workers: int = option(
        1, "Local processes, for --sources, runs and exports.", section="Running", metavar="N", least=1, most=1024
    )
    beam_args: tuple[str, ...] = ()
