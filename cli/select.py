"""``cptsel select``."""

from functools import partial
from typing import Any

from cptsel.cli._common import Summary, pass_command
from cptsel.cli._options import config_argument, config_option
from cptsel.pipeline.config import SelectConfig

_what = partial(config_option, SelectConfig, section="What is chosen")
_groups = partial(config_option, SelectConfig, section="Groups")
_replay = partial(config_option, SelectConfig, section="Replay")
_running = partial(config_option, SelectConfig, section="Running")

PARAMETERS = [
    config_argument(SelectConfig, "runs", "Directories written by cptsel embed.", metavar="RUN..."),
    _what(
        "method",
        "uniform draws at random; craig covers all gradients by facility location, and weights each "
        "choice by what it stands for.",
        choices=("uniform", "craig"),
    ),
    _what(
        "budget",
        "How much is chosen: a share of the samples (5%), a count ('10000 samples') or tokens ('50M tokens').",
        metavar="BUDGET",
    ),
    _what(
        "scope",
        "shard chooses in every shard alone, without communication; global merges the shards' choices and "
        "scores them on samples of all.",
        choices=("shard", "global"),
    ),
    _what(
        "similarity",
        "Distance of craig: euclidean between mean token gradients, or cosine between their directions.",
        choices=("euclidean", "cosine"),
    ),
    _what("neighbours", "Neighbours of each sample in craig's graph.", metavar="K"),
    _what("refine", "Medoid passes over craig's choice; 0 for none.", metavar="N"),
    _what(
        "exclude",
        "File of doc_ids, doc_keys, sample_ids or hex content hashes of samples, one a line, to leave out.",
        metavar="FILE",
    ),
    _what("seed", "Seed of every draw.", metavar="N"),
    _groups("group_by", "Column of the embeddings by which the budget is split.", metavar="COLUMN"),
    _groups(
        "group_alpha",
        "Exponent of the groups' shares: 1 keeps the corpus's own mix, 0 makes all groups equal.",
        metavar="A",
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
