"""The options of ``cptsel export``, each declared once."""

from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, ReadBy, argument, option
from cptsel.pipeline.exports.registry import EXPORTS


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Configuration):
    """Options of ``cptsel export``."""

    replay: str = argument("Directory written by cptsel select or cptsel order.", metavar="REPLAY")
    to: str = option(
        "jsonl",
        "Format: " + "; ".join(f"{name} is {format.summary}" for name, format in EXPORTS.items()) + ".",
        section="What is written",
        choices=EXPORTS,
    )
    ids: bool = option(
        False,
        "Also write the token ids that were embedded, as input_ids; megatron, olmo and nanotron hold nothing else.",
        section="What is written",
    )
    tokenizer: str | None = option(
        None,
        "Directory of the model whose tokenizer makes them; by default the model that embedded the corpus.",
        section="What is written",
        metavar="DIR",
    )
    root: str | None = option(
        None,
        "Directory where the corpus is now; by default where it was embedded.",
        section="What is written",
        metavar="DIR",
    )
    exclude: str | None = option(
        None,
        "File of doc_ids, doc_keys, sample_ids or hex content hashes to leave out, one per line.",
        section="What is written",
        metavar="FILE",
    )
    license: str | None = option(
        None,
        "License of the texts, as the Hugging Face hub names it (apache-2.0, cc-by-4.0, other), for README.md and "
        "croissant.json.",
        section="What is written",
        metavar="NAME",
    )
    new_corpus: str | None = option(
        None,
        "The new corpus, as the trainer is to read it. TRAINING.md then shows how to mix the two, and if a "
        "trainer takes a file for that, the file is written beside the data.",
        section="Mixing",
        metavar="PATH",
    )
    mix_fraction: float | None = option(
        None,
        "Share of training that is replay, as the trainer counts it (sequences, samples or tokens); by "
        "default the share that the manifest gives for each phase.",
        section="Mixing",
        metavar="F",
        above=0,
        most=1,
        read=ReadBy("with --new-corpus", lambda config: config.new_corpus is not None),
    )
    out: str = option(help="Directory to write.", section="Running", metavar="DIR")
    overwrite: bool = option(False, "Replace the directory if it exists.", section="Running")
    dry_run: bool = option(False, "Only say what would be written.", section="Running")
    workers: int = option(1, "Local processes.", section="Running", metavar="N", least=1, most=1024)
    beam_args: tuple[str, ...] = ()
