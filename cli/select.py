"""``cptsel select``."""

from functools import partial
from typing import Any

from cptsel.cli._common import Summary, pass_command
from cptsel.cli._options import config_argument, config_option
from cptsel.pipeline.config import SelectConfig
from cptsel.pipeline.selection.methods import METHODS

_what = partial(config_option, SelectConfig, section="What is chosen")
_vectors = partial(config_option, SelectConfig, section="Coverage and matching")
_interference = partial(config_option, SelectConfig, section="Checkpoints and the new domain")
_groups = partial(config_option, SelectConfig, section="Groups")
_rounds = partial(config_option, SelectConfig, section="Rounds")
_phases = partial(config_option, SelectConfig, section="Phases and order")
_replay = partial(config_option, SelectConfig, section="Replay")
_running = partial(config_option, SelectConfig, section="Running")

PARAMETERS = [
    config_argument(SelectConfig, "runs", "Directories written by cptsel embed.", metavar="RUN..."),
    _what(
        "method",
        "; ".join(f"{name} {method.summary}" for name, method in METHODS.items()) + ".",
        choices=tuple(METHODS),
    ),
    _what(
        "budget",
        "How much is chosen: a share of the candidate samples (5%), a count ('10000 samples') or tokens "
        "('50M tokens').",
        metavar="BUDGET",
    ),
    _what(
        "scope",
        "For coverage and matching: shard chooses in every shard alone, without communication; global merges the "
        "shards' choices and scores them on samples of all. Draws are made over whole groups, but for mini-batches.",
        choices=("shard", "global"),
    ),
    _what(
        "partition",
        "Parts of a global choice: the shards, or clusters, to which samples are routed first so that neighbours meet.",
        choices=("shard", "cluster"),
    ),
    _what("partitions", "Clusters of each group; by default one for 50,000 samples.", metavar="N"),
    _what(
        "unit",
        "What is chosen: samples, or mini-batches of samples that follow each other in a shard.",
        choices=("sample", "batch"),
    ),
    _what("batch_size", "Samples of a mini-batch.", metavar="N"),
    _what("importance", "What importance draws by: gradient norm or loss.", choices=("norm", "loss")),
    _what(
        "exclude",
        "File of doc_ids, doc_keys, sample_ids or hex content hashes of samples, one a line, to leave out.",
        metavar="FILE",
    ),
    _what("seed", "Seed of every draw.", metavar="N"),
    _vectors(
        "similarity",
        "Distance of coverage: euclidean between mean token gradients, or cosine between their directions.",
        choices=("euclidean", "cosine"),
    ),
    _vectors("neighbours", "Neighbours of each sample in the graph of coverage.", metavar="K"),
    _vectors("refine", "Medoid passes over craig's choice; 0 for none.", metavar="N"),
    _vectors(
        "ridge",
        "Ridge of matching, relative to the mean squared gradient; by default what does best on the validation sketch.",
        metavar="L",
    ),
    _vectors("parts", "Clusters that matching is split into; by default what validates best.", metavar="N"),
    _vectors(
        "tolerance",
        "Matching of a cell stops, even below its budget, once it misses at most this share of the length of its "
        "gradient on the selection sketch; 0 for never.",
        metavar="T",
    ),
    _interference(
        "combine",
        "Several RUNs are the same samples at several checkpoints: concat puts their gradients side by side, "
        "difference takes the second's minus the first's.",
        choices=("concat", "difference"),
    ),
    _interference("new", "Embedding run of the new domain, by the model that RUN was embedded with.", metavar="RUN"),
    _interference(
        "mass",
        "What a sample stands for: its part of the corpus, or that times how much the new domain raises its loss; "
        "interference is implied by --method interference.",
        choices=("corpus", "interference"),
    ),
    _interference("interference_beta", "Exponent of that rise, of samples and of groups.", metavar="B"),
    _groups("group_by", "Column of the embeddings by which the budget is split.", metavar="COLUMN"),
    _groups(
        "group_alpha",
        "Exponent of the groups' shares: 1 keeps the corpus's own mix, 0 makes all groups equal.",
        metavar="A",
    ),
    _groups(
        "group_mass",
        "Shares of the groups: a YAML or JSON file of group: share, or the word interference for how much each "
        "group's loss rises.",
        metavar="FILE",
    ),
    _groups("group_floor", "The least that each group gets of the budget, such as 1% or '100 samples'.", metavar="B"),
    _groups("group_cap", "The most that each group gets; both leave what a group stands for as it is.", metavar="B"),
    _groups(
        "cell_shares",
        "What shards share a group's budget by: mass, or the sum of gradient norms.",
        choices=("mass", "grad-norm"),
    ),
    _rounds("history", "Manifest that was replayed before; repeatable.", metavar="REPLAY"),
    _rounds(
        "history_mode",
        "What was replayed before is left out (exclude), counts for less (discount), or is left out and stands for "
        "what is near it, so that only new ground counts (cover).",
        choices=("exclude", "discount", "cover"),
    ),
    _rounds("history_discount", "What discount multiplies a score or gain by, for each round.", metavar="D"),
    _rounds(
        "explore", "Share of the budget that is drawn uniformly from what was never replayed, before all.", metavar="F"
    ),
    _phases("phases", "Stages of training, each with samples of its own.", metavar="N"),
    _phases(
        "phase_budget",
        "Draw each phase after the first from the first one's picks, by what they stand for and their gradient norm: "
        "so much of them.",
        metavar="BUDGET",
    ),
    _phases("phase_run", "Select the next phase from this run of a later checkpoint; repeatable.", metavar="RUN"),
    _phases("mix_ratio", "Budget of mix-review as a multiple of the tokens of --new.", metavar="R"),
    _phases("mix_decay", "What mix-review's budget is multiplied by from phase to phase.", metavar="D"),
    _phases(
        "curriculum",
        "Order of the samples in a phase: by loss or gradient norm a token, or by the gain with which they were "
        "chosen; by default that of the corpus.",
        choices=("loss", "norm", "gain"),
    ),
    _phases("curriculum_order", "Whether that rises or falls.", choices=("ascending", "descending")),
    _phases(
        "curriculum_buckets", "Only so many steps of it, with random order inside each; by default none.", metavar="N"
    ),
    _replay(
        "realisation",
        "How a trainer realises weights: repeat plays samples several times; loss plays each once and multiplies "
        "its loss; sampling draws them by weight; none plays each once and ignores weights.",
        choices=("repeat", "loss", "sampling", "none"),
    ),
    _replay(
        "replay_tokens",
        "Tokens that the replay plays, such as 20M; by default those of the chosen samples.",
        metavar="TOKENS",
    ),
    _replay("max_repeats", "Most times that one sample is played.", metavar="N"),
    _running("out", "Directory to write.", metavar="REPLAY"),
    _running("overwrite", "Replace REPLAY if it is there."),
    _running("dry_run", "Say what would be done and do nothing."),
    _running("skip_residuals", "Don't measure how well the choice matches the gradient of the whole."),
    _running("workers", "Local processes.", metavar="N"),
]


@pass_command(SelectConfig, PARAMETERS, "cptsel select run --method craig --budget 5% --group-by language --out replay")
def select(config: SelectConfig, progress: Any) -> Summary:
    """Choose a weighted subset of an embedded corpus: a replay manifest.

    Reads one embedding RUN, or several that belong together, and writes REPLAY: which samples to replay, with what
    weight, and how often each is played. What follows -- goes to Apache Beam.
    """
    from cptsel.pipeline.select import select as run

    return run(config, progress)
