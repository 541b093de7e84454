"""What the options of ``select`` may be, alone and together; every refusal names option, value and remedy."""

import math
from collections.abc import Mapping
from dataclasses import replace

from cptsel.pipeline import io
from cptsel.pipeline.config import check_read, check_values, default_of, flag
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.budget import parse_budget
from cptsel.pipeline.selection.config import SelectConfig, wants_rise
from cptsel.pipeline.selection.methods import COVER, DRAW, EVERYTHING, METHODS
from cptsel.pipeline.selection.plan import GroupMix
from cptsel.pipeline.yamlfile import read_mapping


def settle(config: SelectConfig) -> SelectConfig:
    """Check the options and set those that follow from others.

    Raises:
        UsageError: an option out of its range, or options that don't go together.
    """
    check_values(config)
    config = _imply(config)
    check_read(config)
    _check_together(config)
    if METHODS[config.method].family == DRAW:  # a draw needs one threshold a group and no vectors
        config = replace(config, scope="global")
    return config


def group_mix(config: SelectConfig) -> GroupMix:
    """How groups share mass and budget.

    Raises:
        UsageError: the file of ``--group-mass`` is not a mapping of groups to shares.
    """
    mix = GroupMix(
        1.0 if config.group_alpha is None else config.group_alpha,
        floor=parse_budget(config.group_floor) if config.group_floor is not None else None,
        cap=parse_budget(config.group_cap) if config.group_cap is not None else None,
    )
    if config.group_mass is None:
        return mix
    if config.group_mass == "interference":
        return replace(mix, rise_beta=config.interference_beta)
    return replace(mix, shares=_read_shares(config.group_mass))


def _imply(config: SelectConfig) -> SelectConfig:
    """Set what the method implies, and the options that only say more of what others say."""
    for name, value in METHODS[config.method].implies.items():
        if getattr(config, name) not in (value, default_of(config, name)):
            raise UsageError(f"--method {config.method} has {flag(name)} {value}; leave the option out")
        config = replace(config, **{name: value})
    if config.phase_run and config.phases == 1:
        config = replace(config, phases=1 + len(config.phase_run))
    return config


def _check_together(config: SelectConfig) -> None:
    """Raise UsageError for options that don't go together."""
    rules = (_group_rules, _phase_rules, _rise_rules, _partition_rules, _choice_rules, _realisation_rules)
    for wrong, sentence in (rule for rules_of in rules for rule in rules_of(config)):
        if wrong:
            raise UsageError(sentence)


def _group_rules(config: SelectConfig) -> list[tuple[bool, str]]:
    needing = [name for name in ("group_mass", "group_floor", "group_cap") if getattr(config, name) is not None]
    return [
        (
            bool(needing) and config.group_by is None,
            f"{flag(needing[0]) if needing else ''} is about groups; name their column with --group-by",
        ),
        (
            config.method == "temperature" and config.group_by is None,
            "--method temperature tempers the shares of groups; name their column with --group-by, and give "
            "--group-alpha",
        ),
        (
            config.method == "temperature" and config.group_alpha in (None, 1.0),
            "--method temperature needs --group-alpha below 1, such as 0.5: at 1 the shares stay as they are",
        ),
        (
            config.group_mass is not None and config.group_alpha not in (None, 1.0),
            "--group-alpha and --group-mass both set the groups' shares; give one of them",
        ),
    ]


def _phase_rules(config: SelectConfig) -> list[tuple[bool, str]]:
    method = METHODS[config.method]
    mixes = config.method == "mix-review"
    more = config.phase_budget is not None or bool(config.phase_run)
    return [
        (
            config.phase_budget is not None and bool(config.phase_run),
            "--phase-budget draws later phases from the first one's picks, --phase-run selects them anew; give one",
        ),
        (
            bool(config.phase_run) and config.combine is not None,
            "--phase-run selects each phase from one run; leave out --combine",
        ),
        (config.phase_budget is not None and config.phases < 2, "--phase-budget is of later phases; give --phases"),
        (
            bool(config.phase_run) and config.phases != 1 + len(config.phase_run),
            f"--phases {config.phases}: with {len(config.phase_run)} --phase-run there are {1 + len(config.phase_run)}",
        ),
        (mixes and more, "--method mix-review draws every phase afresh; leave out --phase-budget and --phase-run"),
        (
            config.mix_ratio is not None and config.budget != default_of(config, "budget"),
            f"--mix-ratio and --budget {config.budget} both say how much is drawn; give one of them",
        ),
        (
            config.mix_ratio is not None and (not mixes or config.new is None),
            "--mix-ratio is the replay of mix-review as a multiple of the new domain: give --method mix-review, and an "
            "embedding run of the new domain with --new",
        ),
        (config.mix_decay != 1.0 and not mixes, "--mix-decay is of --method mix-review; leave it out"),
        (
            config.phases > 1 and not more and not method.family.is_random,
            f"--phases {config.phases}: --method {config.method} would choose the same in each; give --phase-budget "
            "to draw later phases from the first one's picks, or --phase-run to select from later checkpoints",
        ),
        (
            config.explore > 0 and method.family == EVERYTHING,
            "--explore sets a part of the budget aside, and --method full takes everything; leave it out",
        ),
    ]


def _rise_rules(config: SelectConfig) -> list[tuple[bool, str]]:
    """Of the runs beside the first: what tells how losses rise."""
    rises = wants_rise(config)
    return [
        (
            config.combine is not None and config.new is not None and rises,
            "--combine and --new both tell how losses rise; give one of them",
        ),
        (
            config.new is not None and not rises and config.mix_ratio is None,
            "--new is read by interference (--method, --mass or --group-mass) and by --mix-ratio only; leave it out",
        ),
        (config.combine == "difference" and len(config.runs) != 2, "--combine difference takes two runs"),
        (
            bool(config.phase_run) and config.new is not None and rises,
            "--phase-run selects at later checkpoints, and --new is embedded at the first; tell the rise of losses by "
            "--combine difference, in one selection a checkpoint",
        ),
    ]


def _partition_rules(config: SelectConfig) -> list[tuple[bool, str]]:
    by_cluster = config.partition == "cluster"
    return [
        (
            config.unit == "batch" and by_cluster,
            "--partition cluster routes samples, and --unit batch keeps those together that follow each other in a "
            "shard; leave out one of them",
        ),
        (
            by_cluster and (config.scope != "global" or not METHODS[config.method].family.needs_vectors),
            "--partition cluster routes vectors of a global selection: it needs --scope global and a method that "
            "chooses by vectors, such as craig",
        ),
        (
            config.partitions is not None and not by_cluster,
            "--partitions counts those of --partition cluster; give that too",
        ),
    ]


def _choice_rules(config: SelectConfig) -> list[tuple[bool, str]]:
    """Of what the method makes its choice by."""
    family = METHODS[config.method].family
    return [
        (
            config.history_mode == "cover" and (not config.history or family != COVER),
            "--history-mode cover starts coverage from what was replayed: it needs --history and craig or kmedoids",
        ),
        (
            config.history_mode == "discount" and family == EVERYTHING,
            "--history-mode discount weighs choices, and --method full has none; leave it out",
        ),
        (config.tolerance == 1, "--tolerance 1 is reached without a pick; ask for less"),
    ]


def _realisation_rules(config: SelectConfig) -> list[tuple[bool, str]]:
    """Of how the choice is played: its order and repeats."""
    return [
        (
            config.explore > 0 and config.curriculum == "gain",
            "--explore draws at random, and what is drawn has no gain; use --curriculum loss or norm",
        ),
        (
            config.curriculum == "gain" and not METHODS[config.method].family.has_gain,
            f"--curriculum gain: --method {config.method} has no gain; use loss or norm",
        ),
        (
            config.curriculum is not None and config.realisation == "sampling",
            "--realisation sampling draws samples in no order; leave out --curriculum",
        ),
        (
            config.realisation in ("loss", "none") and config.replay_tokens is not None,
            f"--realisation {config.realisation} plays every chosen sample once; leave out --replay-tokens, or give "
            "--realisation repeat",
        ),
    ]


def _read_shares(path: str) -> Mapping[str, float]:
    pairs = read_mapping(path, "--group-mass", "a mapping of groups to shares, such as 'de: 0.3'", io.open_read)
    if not pairs:
        raise UsageError(f"--group-mass {path}: must be a mapping of groups to shares, such as 'de: 0.3'")
    shares: dict[str, float] = {}
    for group, share in pairs:
        if not isinstance(group, str):
            raise UsageError(f"--group-mass {path}: the group {group!r} is no text to YAML; put its name in quotes")
        if isinstance(share, bool) or not isinstance(share, int | float) or not (math.isfinite(share) and share >= 0):
            raise UsageError(f"--group-mass {path}: the share of {group!r} is {share!r}, not a number of at least 0")
        if group in shares:
            raise UsageError(f"--group-mass {path}: the group {group!r} stands there twice; keep one of its shares")
        shares[group] = float(share)
    return shares
