"""The options of ``cptsel verify``, each declared once."""

from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, ReadBy, argument, option


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(Configuration):
    """Options of ``cptsel verify``."""

    directory: str = argument("Directory written by cptsel select, order, embed or export.", metavar="DIRECTORY")
    sources: bool = option(
        False,
        "Also read the corpus again, and compare shard checksums and the text of every chosen sample.",
        section="Checks",
    )
    root: str | None = option(
        None,
        "Directory where the corpus is now, for --sources; by default where it was embedded.",
        section="Checks",
        metavar="DIR",
    )
    run: tuple[str, ...] = option(
        (),
        "Also compare every sample with this embedding run, which the manifest was selected from; repeatable.",
        section="Checks",
        metavar="RUN",
    )
    replay: str | None = option(
        None,
        "Also compare every play of an export with this manifest, which it was exported from.",
        section="Checks",
        metavar="REPLAY",
    )
    exclude: str | None = option(
        None,
        "The list that export --exclude was given, for --replay; without it, missing samples count as left "
        "out, as far as the counts allow.",
        section="Checks",
        metavar="FILE",
        read=ReadBy("with --replay", lambda config: config.replay is not None),
    )
    expect: str | None = option(
        None,
        "The id that the directory must have: the manifest_id, for a run the run_id, for an export that of "
        "its manifest. Someone who changes files and remakes all checksums can't keep it.",
        section="Checks",
        metavar="ID",
    )
    workers: int = option(
        1, "Local processes, for --sources, runs and exports.", section="Running", metavar="N", least=1, most=1024
    )
    beam_args: tuple[str, ...] = ()
