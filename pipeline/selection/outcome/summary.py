"""What ``cptsel select`` prints: totals, a table by group, and warnings."""

from typing import Any

from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.manifest import NO_GROUP
from cptsel.pipeline.kernels.coverage.shortlist import CELL_ROWS, FEW
from cptsel.pipeline.results import Coverage, Residuals, SelectResult
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.selection.methods import MATCH, METHODS
from cptsel.pipeline.selection.outcome.phases import Phase
from cptsel.pipeline.selection.plan import Plan, Share
from cptsel.pipeline.summary import Table
from cptsel.schemas.headers import ManifestHeader, PhaseEntry

_BYTES_A_PICK, _BYTES_A_FILE = 110, 8_000  # of samples/, compressed; measured on text corpora
_PAIRS_A_SECOND = 2e10  # coordinates compared a second and core by the neighbour search; a rough figure
_CELLS_SHOWN = 20
_NOISE = 2.0  # a target shorter than so many times its sampling noise is called noise
_EFFECTIVE = 0.5  # a smaller share of the chosen tokens that the weights leave effective is worth a warning
_CUT = 0.05  # a larger share of the replay that the cap moves to other samples is worth a warning


def select_summary(
    config: SelectConfig, header: ManifestHeader, plan: Plan, unmatched: int, stats: dict[str, Any]
) -> SelectResult:
    """The summary of a finished selection, from the manifest's header.

    Args:
        config: settled options.
        header: ``manifest.json``.
        plan: of phase 0.
        unmatched: entries of the exclusion list that name nothing in the runs.
        stats: seconds and memory.
    """
    totals, report, first = header["totals"], header["selection"]["report"], header["phases"][0]
    asked = header["weighting"]["replay_tokens"]["requested"]
    repeats = config.realisation == "repeat"
    ridges = ", ".join(f"{ridge} in {cells}" for ridge, cells in report.get("ridges", {}).items())
    return SelectResult(
        out=config.out,
        status="done",
        method=config.method,
        shards=totals["shards"],
        samples=totals["population_samples"],
        tokens=totals["population_tokens"],
        selected_samples=totals["selected_samples"],
        selected_tokens=totals["selected_tokens"],
        effective_tokens=totals["effective_tokens"],
        **_stands_for(config),
        replay_tokens_to_be_drawn=asked if config.realisation == "sampling" else None,
        replay_tokens=totals["replay_tokens"] if repeats else None,
        replay_tokens_asked_for=asked if repeats else None,
        plays=totals["plays"] if repeats else None,
        samples_that_are_played=sum(group["played_samples"] for group in header["groups"]) if repeats else None,
        coverage=_coverage(report) if "mean_distance" in report else None,
        ridge=ridges or None,
        parts=report["parts"] if ridges else None,
        residuals=_residuals(first) if "residual" in first else None,
        seconds=round(stats["seconds"], 1),
        peak_memory=stats["peak_memory_bytes"],
        tables=[_groups_table(header), *_reports_table(header), *_phases_table(header)],
        warnings=manifest_warnings(header) + _warnings(config, header, plan) + _unmatched_warning(unmatched),
    )


def _stands_for(config: SelectConfig) -> dict[str, Any]:
    """What samples and groups stand for, where that is not their part of the corpus."""
    by_exponent = config.group_by is not None and config.group_mass is None and config.group_alpha != 1.0
    return {
        "mass": None if config.mass == "corpus" else config.mass,
        "exponent_of_group_shares": config.group_alpha if by_exponent else None,
    }


def _coverage(report: dict[str, Any]) -> Coverage:
    return Coverage(
        mean_distance=report["mean_distance"],
        mean_distance_of_random_picks=report["random_distance"],
        gain_over_random=report["gain_over_random"],
        objective=report["objective"],
        objective_of_random_picks=report["random_objective"],
    )


def _residuals(phase: PhaseEntry) -> Residuals:
    return Residuals(
        residual=phase["residual"],
        residual_on_the_validation_sketch=phase["validation_residual"],
        residual_of_random_picks=phase["random_validation_residual"],
    )


def _groups_table(header: ManifestHeader) -> Table:
    mass = header["totals"]["population_mass"]
    return Table(
        title=_groups_title(len(header["phases"])),
        columns=[
            "group", "samples", "tokens", "share of mass", "target share", "selected samples", "selected tokens",
            "replay tokens", "mean weight", "effective tokens",
        ],
        rows=[
            [
                group["group"],
                group["population_samples"],
                group["population_tokens"],
                group["population_mass"] / mass,
                group["target_mass"] / mass,
                group["selected_samples"],
                group["selected_tokens"],
                group["replay_tokens"],
                group["target_mass"] / group["selected_tokens"] if group["selected_tokens"] else 0.0,
                group["effective_tokens"],
            ]
            for group in header["groups"]
            if group["phase"] == 0
        ],
    )  # fmt: skip


def _groups_title(phases: int) -> str:
    """The table of groups is of the first phase: those of the others stand in the manifest."""
    return "Groups" if phases == 1 else f"Groups in phase 0 of {phases}"


def _phases_table(header: ManifestHeader) -> list[Table]:
    phases = header["phases"]
    if len(phases) < 2:
        return []
    names = ("phase", "samples", "tokens", "effective_tokens", "validation_residual")
    return [
        Table(
            title="Phases",
            columns=["phase", "samples", "tokens", "effective tokens", "validation residual"],
            rows=[[phase.get(name) for name in names] for phase in phases],
        )
    ]


def _reports_table(header: ManifestHeader) -> list[Table]:
    reports = header["selection"]["reports"]
    if len(reports) < 2 or "mean_distance" not in reports[0]:  # one group: the totals say it all
        return []
    names = ("mean_distance", "random_distance", "gain_over_random")
    return [
        Table(
            title="Coverage",
            columns=["group", "mean distance", "of random picks", "gain over random"],
            rows=[[report["group"], *(report[name] for name in names)] for report in reports],
        )
    ]


def _warnings(config: SelectConfig, header: ManifestHeader, plan: Plan) -> list[str]:
    found = []
    replay = header["weighting"]["replay_tokens"]
    if replay["shortfall"] >= 1:
        found.append(
            f"{replay['shortfall']:,.0f} of {replay['requested']:,} replay tokens can't be played: "
            f"samples are at the cap of {header['weighting']['max_repeats']} repeats"
        )
    first = header["phases"][0]
    picked = first[plan.unit]
    if plan.budget - picked > (0.02 * plan.budget if plan.unit == "tokens" else 0):
        found.append(
            f"{picked:,} of the {plan.budget:,} {plan.unit} of the budget were picked: whole samples or batches don't "
            "fill every cell, or the method has no use for more"
        )
    cut = sum(group["cut_tokens"] for group in header["groups"])
    if cut > _CUT * replay["requested"]:
        found.append(
            f"weights ask for {cut:,.0f} of the {replay['requested']:,} replay tokens beyond "
            f"--max-repeats {config.max_repeats}, and other samples are played instead: raise it, or let the trainer "
            "weight losses or draw by weight (--realisation loss or sampling)"
        )
    effective, chosen = first["effective_tokens"], first["tokens"]
    if config.realisation != "none" and effective < _EFFECTIVE * chosen:
        found.append(
            f"weights leave only {effective:,.0f} of the {chosen:,} chosen tokens effective: a few samples count for "
            "many others, which replays less of the corpus than as many random samples would; --realisation none "
            "plays each chosen sample once, and --similarity cosine or --scope global may give more even weights"
        )
    if len(plan.groups) == 1 and plan.groups[0].group == NO_GROUP:
        found.append(f"--group-by {config.group_by}: no sample has a value there, so all are one group")
    if METHODS[config.method].family == MATCH and first.get("target_norm", 0) < _NOISE * first.get("target_noise", 0):
        found.append(
            f"the sum of all gradients is only {first['target_norm'] / first['target_noise']:.1f} times its sampling "
            "noise, so matching it says little: a model at the end of its pre-training is nearly stationary on its "
            "corpus; embed with a checkpoint that has seen a little of the new domain, and match there"
        )
    advised = header["selection"]["report"].get("neighbours_advised", 0)
    if config.scope == "shard" and config.neighbours < advised:  # a merge links clients to candidates alone
        found.append(f"--neighbours {config.neighbours} is low for this budget; {advised} would cover better")
    empty = sum(cell.budget == 0 for cell in plan.cells)
    if config.scope == "shard" and empty:
        found.append(
            f"{empty:,} of {len(plan.cells):,} cells (a group in a shard) have no budget; the picks of other shards "
            "stand for them by weight, without being similar: --scope global would look for similar ones"
        )
    return found


def _unmatched_warning(unmatched: int) -> list[str]:
    if not unmatched:
        return []
    return [
        f"--exclude: {unmatched:,} {'entry names' if unmatched == 1 else 'entries name'} nothing in the runs; "
        "hashes of whole documents work only in cptsel embed and export, which read the texts"
    ]


def _pairs(cell: Share) -> float:
    """Pairs of samples that are compared, roughly: coverage splits large cells, and matching compares no more."""
    return cell.samples * min(cell.samples, CELL_ROWS + FEW * cell.budget)


def dry_run_summary(config: SelectConfig, phases: list[Phase], plan: Plan, unmatched: int) -> SelectResult:
    """What would be done: counts, budgets of phase 0 by group and cell, and estimates of bytes and time."""
    runs = phases[0].runs
    reads_vectors = METHODS[config.method].family.needs_vectors
    samples = sum(group.samples for group in plan.groups)
    tokens = sum(group.tokens for group in plan.groups)
    picks = plan.budget if plan.unit == "samples" else round(plan.budget * samples / tokens)
    stored = sum(one.bytes for shard in runs.shards for one in (shard, *shard.later))
    k = runs.headers[0]["projection"]["k"]
    largest = max((shard.samples for shard in runs.shards), default=0)
    rows = [
        [g.group, g.samples, g.tokens, g.mass / plan.mass, g.target_mass / plan.mass, g.budget] for g in plan.groups
    ]
    groups = Table(
        title=_groups_title(len(phases)),
        columns=["group", "samples", "tokens", "share of mass", "target share", f"budget ({plan.unit})"],
        rows=rows,
    )
    first = [[cell.shard_id, cell.group, cell.samples, cell.budget] for cell in plan.cells[:_CELLS_SHOWN]]
    cells = Table(
        title=f"Cells (the first {len(first)} of {len(plan.cells)})",
        columns=["shard", "group", "samples", f"budget ({plan.unit})"],
        rows=first,
    )
    return SelectResult(
        out=config.out,
        status="dry-run",
        method=config.method,
        shards=runs.files,
        samples=samples,
        tokens=tokens,
        **_stands_for(config),
        cells=len(plan.cells),
        phases=len(phases) if len(phases) > 1 else None,
        budget_samples=plan.budget if plan.unit == "samples" else None,
        budget_tokens=plan.budget if plan.unit == "tokens" else None,
        picks=picks,
        bytes_of_embeddings=stored,
        bytes_of_the_manifest=picks * _BYTES_A_PICK + min(picks, len(runs.shards)) * _BYTES_A_FILE,
        core_seconds=round(sum(map(_pairs, plan.cells)) * k / _PAIRS_A_SECOND, 1) if reads_vectors else None,
        bytes_of_memory_a_worker=largest * k * 10 if reads_vectors else None,
        tables=[groups, cells] if config.scope == "shard" else [groups],
        warnings=_unmatched_warning(unmatched),
    )
