"""What each command returns: a ``Summary`` whose figures are attributes.

A figure is printed by its attribute's name, or as ``called`` says. Figures stand in the order of their fields.
"""

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from cptsel.pipeline.summary import Summary

_OF_ALL = {one.name for one in fields(Summary)}


def called(label: str, *, dry_run: str = "", default: Any = MISSING) -> Any:
    """A figure that is printed as ``label``, or in a dry run as ``dry_run``."""
    return field(default=default, metadata={"label": label, "dry-run": dry_run or label})


@dataclass(frozen=True, kw_only=True, repr=False)
class Result(Summary):
    """A summary that derives ``totals`` from the fields which its subclass adds.

    A figure that has a default is left out where it has that value. One that is a dataclass stands for its own fields.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "totals", dict(_printed(self, self.status)))


def _printed(holder: Any, status: str) -> Iterator[tuple[str, Any]]:
    """Figures by the names under which they are printed."""
    for one in fields(holder):
        value = getattr(holder, one.name)
        if one.name in _OF_ALL or (one.default is not MISSING and value == one.default):
            continue
        if hasattr(value, "__dataclass_fields__"):
            yield from _printed(value, status)
        else:
            yield _label(one, status), ("yes" if value else "no") if isinstance(value, bool) else value


def _label(one: "Field[Any]", status: str) -> str:
    metadata = one.metadata
    return metadata.get(status, metadata["label"]) if metadata else one.name.replace("_", " ")


@dataclass(frozen=True, kw_only=True, repr=False)
class EmbedResult(Result):
    """What ``embed`` did, or in a dry run what it would do; figures of the other kind are None.

    Attributes:
        shards: files of the corpus.
        corpus_bytes: as they are stored.
        max_tokens: of a window.
        corpus_documents, corpus_tokens: estimates for the whole corpus.
        rows_read, rows_kept, rows_rejected, rows_excluded, rows_not_drawn: rows of the shards.
        pool: its rates; in a dry run, that of all documents together.
        lookahead: where along a new corpus the model stood.
        shards_damaged, bytes_lost: what could not be read.
        rows_with_special_tokens: whose text spells a special token.
        samples, tokens: that were embedded; in a dry run estimates.
        bytes_of_embeddings: as they are stored.
        tokens_taken_over: from the run of ``--grow``, by this call; the others were embedded.
        seconds, tokens_per_second: of this call; in a dry run, of one worker.
        hours: that it would take, the steps of a lookahead with it.
        ranges_not_done: those that other commands still have to embed.
    """

    command: str = "embed"
    shards: int
    corpus_bytes: int | None = called("corpus bytes (as stored)", default=None)
    max_tokens: int | None = None
    corpus_documents: int | None = called("corpus documents (estimate)", default=None)
    corpus_tokens: int | None = called("corpus tokens (estimate)", default=None)
    rows_read: int | None = None
    rows_kept: int | None = None
    rows_rejected: int | None = None
    rows_excluded: int | None = None
    rows_not_drawn: int | None = None
    pool: str | None = None
    lookahead: str | None = None
    shards_damaged: int = 0
    bytes_lost: int = 0
    rows_with_special_tokens: int = 0
    samples: int = called("samples", dry_run="samples (estimate)")
    tokens: int = called("tokens", dry_run="tokens (estimate)")
    bytes_of_embeddings: int | None = called(
        "bytes of embeddings", dry_run="bytes of embeddings (estimate)", default=None
    )
    tokens_taken_over: int | None = called("tokens taken over", dry_run="tokens taken over (estimate)", default=None)
    seconds: float | None = None
    tokens_per_second: float | None = called("tokens per second", dry_run="tokens per second, one worker", default=None)
    hours: float | None = called("hours (estimate)", default=None)
    ranges_not_done: str | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class LookaheadResult(Result):
    """What ``lookahead`` did, or in a dry run what it would do; figures of the other kind are None.

    Attributes:
        files: of the new corpus.
        model: at which the steps began.
        optimizer, learning_rate: of the steps.
        steps: their number.
        tokens_a_step: that each would see.
        documents_seen, windows_seen: of the new corpus.
        loss_before, loss_after: nats a token, on the same text.
        seconds: of this call.
    """

    command: str = "lookahead"
    files: int | None = called("files of the new corpus", default=None)
    model: str | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    steps: int
    tokens_a_step: int | None = None
    documents_seen: int | None = None
    windows_seen: int | None = None
    loss_before: float | None = called("loss before, nats a token", default=None)
    loss_after: float | None = called("loss after, on the same text", default=None)
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How near the corpus is to the picks of a coverage method (docs/design.md, Coverage).

    Attributes:
        mean_distance: from a token to the nearest pick of its group, 0 to 2.
        mean_distance_of_random_picks: the same of as many random ones.
        gain_over_random: the share of that distance which the method saves.
        objective, objective_of_random_picks: what the method maximises.
    """

    mean_distance: float
    mean_distance_of_random_picks: float
    gain_over_random: float
    objective: float
    objective_of_random_picks: float


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """What the weighted picks of phase 0 miss of the gradient of all samples, relative to its length.

    None where there is nothing to measure by.

    Attributes:
        residual: on the sketch that methods are fitted to.
        residual_on_the_validation_sketch: on the one that none is fitted to.
        residual_of_random_picks: on the validation sketch too, on average.
    """

    residual: float | None
    residual_on_the_validation_sketch: float | None
    residual_of_random_picks: float | None = called("residual of random picks, on average")


@dataclass(frozen=True, kw_only=True, repr=False)
class SelectResult(Result):
    """What ``select`` chose, or in a dry run what it would; figures of the other kind are None.

    Attributes:
        method: by which was chosen.
        shards: files of the corpus, which count once where runs are pools of one.
        samples, tokens: of the runs.
        selected_samples, selected_tokens: of all phases.
        effective_tokens: Σ over phases of (Σ w n)² / Σ w² n.
        mass: that picks stand for; None where it is the corpus's own.
        exponent_of_group_shares: ``--group-alpha``, where it changes the groups' shares.
        replay_tokens_to_be_drawn: by a trainer that samples by weights.
        replay_tokens, replay_tokens_asked_for: that are played in an epoch.
        plays, samples_that_are_played: in an epoch, with ``--realisation repeat``.
        coverage: of coverage methods.
        ridge, parts: of matching methods: how often each strength was taken, and problems that were solved.
        cells: of a group in a shard.
        phases: where there are several.
        budget_samples, budget_tokens: what may be chosen, in one unit or the other.
        picks: about as many.
        bytes_of_embeddings: that are there.
        bytes_of_the_manifest, core_seconds, bytes_of_memory_a_worker: about.
        residuals: None with ``--skip-residuals``.
        seconds: of this call.
        peak_memory: bytes, of this process or its children.
    """

    command: str = "select"
    method: str
    shards: int
    samples: int
    tokens: int
    selected_samples: int | None = None
    selected_tokens: int | None = None
    effective_tokens: float | None = None
    mass: str | None = None
    exponent_of_group_shares: float | None = None
    replay_tokens_to_be_drawn: int | None = called("replay tokens, to be drawn", default=None)
    replay_tokens: int | None = None
    replay_tokens_asked_for: int | None = None
    plays: int | None = None
    samples_that_are_played: int | None = None
    coverage: Coverage | None = None
    ridge: str | None = None
    parts: int | None = None
    cells: int | None = None
    phases: int | None = None
    budget_samples: int | None = called("budget (samples)", default=None)
    budget_tokens: int | None = called("budget (tokens)", default=None)
    picks: int | None = called("picks, about", default=None)
    bytes_of_embeddings: int | None = None
    bytes_of_the_manifest: int | None = called("bytes of the manifest, about", default=None)
    core_seconds: float | None = called("core seconds, about", default=None)
    bytes_of_memory_a_worker: int | None = called("bytes of memory a worker, about", default=None)
    residuals: Residuals | None = None
    seconds: float | None = None
    peak_memory: int | None = called("peak memory, bytes", default=None)


@dataclass(frozen=True, kw_only=True, repr=False)
class OrderResult(Result):
    """The order that ``order`` made.

    Attributes:
        epochs, ranks: that have schedules.
        visits_per_epoch: visits of shards, over all phases and ranks.
        tokens_per_epoch, tokens_in_all_epochs: that are played.
    """

    command: str = "order"
    epochs: int
    ranks: int
    visits_per_epoch: int
    tokens_per_epoch: int
    tokens_in_all_epochs: int


@dataclass(frozen=True, kw_only=True, repr=False)
class ExportResult(Result):
    """What ``export`` wrote, or in a dry run what it would.

    Attributes:
        format: of ``--to``.
        fidelity: how near training comes to the manifest: exact, shard-level, unordered or expectation-only.
        instructions: what the trainer must do with the files.
        files: None in a dry run where it is known only when they are written.
        bytes: None in a dry run.
        lines, tokens: plays, and their tokens, in all files.
        excluded_samples, excluded_lines, excluded_tokens: left out by ``--exclude``; None without it.
    """

    command: str = "export"
    format: str
    fidelity: str
    instructions: str = called("the trainer")
    files: int | None = None
    bytes: int | None = None
    lines: int
    tokens: int
    excluded_samples: int | None = None
    excluded_lines: int | None = None
    excluded_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class VerifyResult(Result):
    """What ``verify`` has read of a manifest, a run or an export; the table "Checks" says how far each check went.

    Attributes:
        manifest_id: of a manifest.
        run_id: of an embedding run.
        samples: of a manifest or a run.
        tokens_played_in_an_epoch: of a manifest.
        parent: the manifest_id of which an export is.
        format: of an export.
        lines, tokens: plays of an export, and their tokens.
        problems: that were found. The command raises VerificationError where there are any.
    """

    command: str = "verify"
    manifest_id: str | None = called("manifest_id", default=None)
    run_id: str | None = called("run_id", default=None)
    samples: int | None = None
    tokens_played_in_an_epoch: int | None = None
    parent: str | None = None
    format: str | None = None
    lines: int | None = None
    tokens: int | None = None
    problems: int


@dataclass(frozen=True, kw_only=True, repr=False)
class CompareResult(Result):
    """Selections beside each other; the tables have what they differ in.

    Attributes:
        selections: how many.
        phase: that is compared.
        samples, tokens: of the corpus; where selections are from several pools of it, or it grew, of the largest.
    """

    command: str = "compare"
    out: str | None = None
    selections: int
    phase: int
    samples: int = called("samples of the corpus")
    tokens: int = called("tokens of the corpus")


@dataclass(frozen=True, kw_only=True, repr=False)
class PlanResult(Result):
    """What ``plan`` foretells. Rises are in the unit of the file.

    Attributes:
        trainings: rows of the file.
        rise_without_replay: r₀ of the law.
        saved_by_doubling: what twice the largest replay saves more, by the law.
        saved_by_the_largest: replay of the file.
        scale: s of the law, in tokens.
        error: root mean square, of replays that the law was not fitted to.
        tolerated_rise: that was asked for.
        tokens_needed: the least replay that keeps to it.
        tokens_at_least, tokens_at_most: the same, with the law moved by its error either way; None if far off.
    """

    command: str = "plan"
    trainings: int
    rise_without_replay: float
    saved_by_doubling: float = called("saved by doubling the largest replay")
    saved_by_the_largest: float = called("saved by the largest replay")
    scale: float = called("scale of the law in tokens")
    error: float = called("error on replays left out")
    tolerated_rise: float | None = None
    tokens_needed: int | None = called("replay tokens needed", default=None)
    tokens_at_least: int | None = called("at least", default=None)
    tokens_at_most: int | None = called("at most", default=None)


@dataclass(frozen=True, kw_only=True, repr=False)
class ReportResult(Result):
    """What the page of ``report`` shows.

    Attributes:
        selections: one or two.
        chosen_samples: of both.
        points: of the map, 0 without ``--run``.
        texts: that could be shown.
        bytes: of the page.
        map: the file of ``--map``.
    """

    command: str = "report"
    selections: int
    chosen_samples: int
    points: int = called("points of the map")
    texts: int
    bytes: int
    map: str | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class ExplainResult(Result):
    """The samples that ``explain`` has found; a table tells of each.

    Attributes:
        manifest_id: of the manifest that chose them.
        found_by: sample_id, doc_key, doc_id or text.
        samples: that are told of.
        others: how many more there are.
    """

    command: str = "explain"
    manifest_id: str = called("manifest_id")
    found_by: str
    samples: int
    others: str | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class LocateResult(Result):
    """The sample that a rank plays at a position.

    Attributes:
        phase, epoch, rank, position: the place.
        number: of the pass over the shard, from 0.
        sample_id, doc_key, doc_id, group, method, score, weight, repeat, loss_weight: as in the samples file.
        probability: with which a random method chose it.
        budget_of_its_group, chosen_from_its_group: in its phase.
        tokens: that are predicted.
        stands_for_tokens: weight · tokens.
        gradient_norm: the length of its sketch, or of its gradient.
        shard, file, row, characters, token_ids: where it lies; characters or token ids, as the corpus is of either.
        text: its beginning; None where the corpus is not at hand.
    """

    command: str = "locate"
    phase: int
    epoch: int
    rank: int
    position: int
    number: int = called("pass")
    sample_id: str = called("sample_id")
    doc_key: str = called("doc_key")
    doc_id: str | None = called("doc_id")
    group: str
    method: str
    score: float | None
    probability: float | None
    budget_of_its_group: str | None = None
    chosen_from_its_group: str | None = None
    tokens: int
    weight: float
    stands_for_tokens: float
    repeat: int
    loss_weight: float | None
    gradient_norm: float | None
    shard: str
    file: str
    row: int
    characters: str | None = None
    token_ids: str | None = None
    text: str | None


@dataclass(frozen=True, kw_only=True, repr=False)
class DistillResult(Result):
    """The teacher targets that ``distill`` wrote, or would write.

    Attributes:
        targets: logits or hidden.
        width: numbers a token.
        model: of which they are.
        is_of_the_manifest: the model is the one that embedded the corpus.
        files: of targets.
        bytes: None in a dry run.
        samples, tokens: that have targets.
        bytes_before_compression: in a dry run.
    """

    command: str = "distill"
    targets: str
    width: int = called("numbers a token")
    model: str
    is_of_the_manifest: bool = called("the manifest's model")
    files: int
    bytes: int | None = None
    samples: int
    tokens: int
    bytes_before_compression: int | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class FisherResult(Result):
    """The Fisher information that ``fisher`` wrote, or would write.

    Attributes:
        kind: true or empirical.
        weights: mass or played.
        model: at which it is taken.
        is_of_the_manifest: the model is the one that embedded the corpus.
        samples, tokens: over which it is taken.
        partial_sums: in a dry run.
        mass: Σ weight · tokens.
        nats: a token: the mean loss.
        parameters: numbers that were written.
        trace: their sum.
    """

    command: str = "fisher"
    kind: str
    weights: str
    model: str
    is_of_the_manifest: bool = called("the manifest's model")
    samples: int
    tokens: int
    partial_sums: int | None = None
    mass: float | None = None
    nats: float | None = None
    parameters: int | None = None
    trace: float | None = None
