"""The options of ``cptsel select``, each declared once: type, default, range, help, and what reads it."""

from collections.abc import Callable
from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, ReadBy, argument, option
from cptsel.pipeline.kernels.budget import parse_budget, parse_tokens
from cptsel.pipeline.selection.methods import COVER, MATCH, METHODS, Cover, Draw, Match, Method

_WHAT, _VECTORS, _NEW, _GROUPS = "What is chosen", "Coverage and matching", "Checkpoints and the new domain", "Groups"
_ROUNDS, _PHASES, _REPLAY, _RUNNING = "Rounds", "Phases and order", "Replay", "Running"


def by_methods(reads: Callable[[Method], bool]) -> ReadBy:
    """An option that only some methods read."""

    def words() -> str:
        names = [name for name, method in METHODS.items() if reads(method)]
        return "by " + " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

    return ReadBy(words, lambda config: reads(METHODS[config.method]), of_methods=True)


_COVERAGE = by_methods(lambda method: method.family is COVER)
_MATCHING = by_methods(lambda method: method.family is MATCH)


def wants_rise(config: "SelectConfig") -> bool:
    """Whether the rise of losses along the new domain decides anything."""
    return config.mass == "interference" or config.group_mass == "interference"


@dataclass(frozen=True, kw_only=True)
class SelectConfig(Configuration):
    """Options of ``cptsel select``; see its ``--help`` and docs/cli.md for the meaning of each."""

    runs: tuple[str, ...] = argument("Directories written by cptsel embed.", metavar="RUN...")

    method: str = option(
        "craig",
        "; ".join(f"{name} {method.summary}" for name, method in METHODS.items()) + ".",
        section=_WHAT,
        choices=METHODS,
    )
    budget: str = option(
        "5%",
        "How much to choose: a share of the candidate samples (5%), a count ('10000 samples') or tokens "
        "('50M tokens', met to within one sample).",
        section=_WHAT,
        metavar="BUDGET",
        parse=parse_budget,
    )
    scope: str = option(
        "global",
        "For coverage and matching: shard chooses in each shard separately, without communication; global "
        "merges the shards' choices and scores them on samples of all shards. Draws are always made over "
        "whole groups.",
        section=_WHAT,
        choices=("shard", "global"),
    )
    partition: str = option(
        "shard",
        "Parts of a global choice: the shards; or clusters, to which samples are routed first so that "
        "neighbours are in one part.",
        section=_WHAT,
        choices=("shard", "cluster"),
    )
    partitions: int | None = option(
        None, "Clusters per group; by default one per 50,000 samples.", section=_WHAT, metavar="N", least=1
    )
    unit: str = option(
        "sample",
        "What is chosen: samples, or mini-batches of samples that are consecutive in a shard.",
        section=_WHAT,
        choices=("sample", "batch"),
    )
    batch_size: int = option(
        8,
        "Samples per mini-batch.",
        section=_WHAT,
        metavar="N",
        least=2,
        read=ReadBy("with --unit batch", lambda config: config.unit == "batch"),
    )
    importance: str = option(
        "norm",
        "What importance draws by: gradient norm or loss.",
        section=_WHAT,
        choices=("norm", "loss"),
        read=by_methods(lambda method: isinstance(method, Draw) and method.by_importance),
    )
    exclude: str | None = option(
        None,
        "File of doc_ids, doc_keys, sample_ids or hex content hashes of samples to leave out, one per line.",
        section=_WHAT,
        metavar="FILE",
    )
    seed: int = option(0, "Seed of every draw.", section=_WHAT, metavar="N", least=0, most=2**31 - 1)

    similarity: str = option(
        "cosine",
        "Distance for coverage: cosine between directions of gradients, or euclidean between mean token gradients.",
        section=_VECTORS,
        choices=("cosine", "euclidean"),
        read=_COVERAGE,
    )
    neighbours: int = option(
        128,
        "Neighbours of each sample in the coverage graph.",
        section=_VECTORS,
        metavar="K",
        least=1,
        read=_COVERAGE,
    )
    refine: int = option(
        2,
        "Medoid passes over craig's choice; 0 for none.",
        section=_VECTORS,
        metavar="N",
        least=0,
        read=by_methods(lambda method: isinstance(method, Cover) and "refine" not in method.settings),
    )
    ridge: float | None = option(
        None,
        "Ridge of matching, relative to the mean squared gradient; by default the one that does best on the "
        "validation sketch.",
        section=_VECTORS,
        metavar="L",
        least=0,
        read=by_methods(lambda method: isinstance(method, Match) and not method.even),
    )
    parts: int | None = option(
        None,
        "Clusters that matching is split into; by default the number that validates best.",
        section=_VECTORS,
        metavar="N",
        least=1,
        read=_MATCHING,
    )
    tolerance: float = option(
        0.0,
        "Stop matching a cell, even below its budget, once the error is at most this share of the length of "
        "its gradient on the selection sketch; 0 for never.",
        section=_VECTORS,
        metavar="T",
        least=0,
        most=1,
        read=_MATCHING,
    )

    combine: str | None = option(
        None,
        "For several RUNs of the same samples at several checkpoints: concat puts their gradients side by "
        "side; difference takes those of the second minus those of the first.",
        section=_NEW,
        choices=("concat", "difference"),
    )
    new: str | None = option(
        None, "Embedding run of the new domain, with the model that RUN was embedded with.", section=_NEW, metavar="RUN"
    )
    mass: str | None = option(
        None,
        "What a sample stands for: corpus is its part of the corpus; interference is that times how much the "
        "new domain raises its loss. By default corpus; interference for --method interference, and for "
        "coverage of a RUN made with --lookahead or --base.",
        section=_NEW,
        choices=("corpus", "interference"),
    )
    interference_beta: float = option(
        1.0,
        "Exponent of the rise of losses, for samples and for groups.",
        section=_NEW,
        metavar="B",
        least=0,
        read=ReadBy("by interference (--method, --mass or --group-mass)", wants_rise),
    )

    group_by: str | None = option(
        None,
        "Column of the embeddings by which the budget is split; recommended if the corpus has domains.",
        section=_GROUPS,
        metavar="COLUMN",
    )
    group_alpha: float | None = option(
        None,
        "Exponent of the groups' shares: 1 keeps the corpus's own mix, 0 makes all groups equal. By default "
        "1; 0.5 for coverage with --mass interference, as the model then forgets less.",
        section=_GROUPS,
        metavar="A",
        least=0,
        # 1 is what config.yaml says of a choice without groups.
        read=ReadBy("with --group-by", lambda config: config.group_by is not None or config.group_alpha == 1.0),
    )
    group_mass: str | None = option(
        None,
        "Shares of the groups: a YAML or JSON file of group: share, or the word interference for shares by "
        "how much each group's loss rises.",
        section=_GROUPS,
        metavar="FILE",
    )
    group_floor: str | None = option(
        None,
        "The least of the budget that each group gets, such as 1% or '100 samples'.",
        section=_GROUPS,
        metavar="B",
        parse=parse_budget,
    )
    group_cap: str | None = option(
        None,
        "The most of the budget that each group gets. Floor and cap don't change what a group stands for.",
        section=_GROUPS,
        metavar="B",
        parse=parse_budget,
    )
    cell_shares: str = option(
        "mass",
        "How a group's budget is divided among shards: by mass, or by the sum of gradient norms.",
        section=_GROUPS,
        choices=("mass", "grad-norm"),
    )

    history: tuple[str, ...] = option(
        (), "Manifest that was replayed before; repeatable.", section=_ROUNDS, metavar="REPLAY"
    )
    history_mode: str = option(
        "exclude",
        "What was replayed before is left out (exclude), counts for less (discount), or is left out but "
        "still stands for what is near it, so that only new ground counts (cover).",
        section=_ROUNDS,
        choices=("exclude", "discount", "cover"),
        read=ReadBy("with --history", lambda config: bool(config.history)),
    )
    history_discount: float = option(
        0.5,
        "Factor by which discount multiplies a score or gain, for each round.",
        section=_ROUNDS,
        metavar="D",
        least=1e-6,
        most=1,
        read=ReadBy("with --history-mode discount", lambda config: config.history_mode == "discount"),
    )
    explore: float = option(
        0.0,
        "Share of the budget that is drawn first, uniformly from what was never replayed.",
        section=_ROUNDS,
        metavar="F",
        least=0,
        most=1,
    )

    phases: int = option(
        1,
        "Stages of training, each with its own samples. Methods that draw at random draw anew for each; the "
        "others need --phase-budget, or --phase-run for each later phase.",
        section=_PHASES,
        metavar="N",
        least=1,
        most=32_767,
    )
    phase_budget: str | None = option(
        None,
        "Draw this much for each phase after the first, from the picks of the first, by what they stand for "
        "and their gradient norm.",
        section=_PHASES,
        metavar="BUDGET",
        parse=parse_budget,
    )
    phase_run: tuple[str, ...] = option(
        (), "Select the next phase from this run of a later checkpoint; repeatable.", section=_PHASES, metavar="RUN"
    )
    mix_ratio: float | None = option(
        None,
        "Budget of mix-review as a multiple of the tokens of --new.",
        section=_PHASES,
        metavar="R",
        above=0,
    )
    mix_decay: float = option(
        1.0,
        "Factor by which mix-review's budget is multiplied from phase to phase.",
        section=_PHASES,
        metavar="D",
        above=0,
        most=1,
    )
    curriculum: str | None = option(
        None,
        "Order of the samples in a phase: by loss or gradient norm per token, or by the gain with which they "
        "were chosen; by default the order of the corpus.",
        section=_PHASES,
        choices=("loss", "norm", "gain"),
    )
    curriculum_order: str = option(
        "ascending",
        "Whether the curriculum's values rise or fall.",
        section=_PHASES,
        choices=("ascending", "descending"),
        read=ReadBy("with --curriculum", lambda config: config.curriculum is not None),
    )
    curriculum_buckets: int | None = option(
        None,
        "Sort the curriculum only into this many buckets, with random order within each; by default it is "
        "sorted fully.",
        section=_PHASES,
        metavar="N",
        least=1,
        read=ReadBy("with --curriculum", lambda config: config.curriculum is not None),
    )

    realisation: str = option(
        "none",
        "How a trainer realises weights: none plays each sample once and ignores them; repeat plays samples several "
        "times; loss plays each once and multiplies its loss; sampling draws them by weight.",
        section=_REPLAY,
        choices=("none", "repeat", "loss", "sampling"),
    )
    replay_tokens: str | None = option(
        None,
        "Tokens of replay to play in each phase, such as 20M; by default those of the chosen samples.",
        section=_REPLAY,
        metavar="TOKENS",
        parse=parse_tokens,
    )
    max_repeats: int = option(
        4,
        "Most times that a sample is played.",
        section=_REPLAY,
        metavar="N",
        least=1,
        most=32_767,
        read=ReadBy("with --realisation repeat", lambda config: config.realisation == "repeat"),
    )

    out: str = option(help="Directory to write.", section=_RUNNING, metavar="REPLAY")
    overwrite: bool = option(False, "Replace REPLAY if it exists.", section=_RUNNING)
    dry_run: bool = option(False, "Only say what would be done.", section=_RUNNING)
    skip_residuals: bool = option(
        False, "Don't measure how well the choice matches the gradient of the whole.", section=_RUNNING
    )
    workers: int = option(1, "Local processes.", section=_RUNNING, metavar="N", least=1, most=1024)
    beam_args: tuple[str, ...] = ()
