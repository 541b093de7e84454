"""Types of the JSON files that cptsel writes: what ``io.read_json`` gives once ``validate`` has passed.

``json/<name>.schema.json`` says the same for other languages, and is what a file is checked against. A test holds the
two against each other. A field that is not required may be absent from a file of another release.
"""

from typing import Any, NotRequired, TypedDict


class FileEntry(TypedDict):
    """A file by what is in it: SHA-256 in hex, and its bytes."""

    sha256: str
    bytes: int


class DataFile(FileEntry):
    """A Parquet file of a manifest."""

    rows: NotRequired[int]


class Fingerprints(TypedDict):
    """What shapes the rows of a run, each as a hash in hex."""

    weights: str
    tokenizer: str
    corpus: str
    projection: str


class Head(TypedDict):
    """How logits come from the last hidden states."""

    tied: bool
    bias: bool
    scale: float | None
    softcap: float | None


#: Facts of the model; ``class`` is no name that a class body takes.
ModelFacts = TypedDict(
    "ModelFacts",
    {
        "source": str,
        "revision": str | None,
        "class": str,
        "vocab_size": int,
        "hidden_size": int,
        "dtype": str,
        "head": Head,
        "bos": str,
    },
)


class ValidationSketch(TypedDict):
    """Sizes of the validation sketch."""

    k: int
    k_v: int


class Projection(TypedDict):
    """What gradients are of, and seed and sizes of their sketches; ``k_v`` is of the head alone."""

    gradient: str
    modules: str | None
    mixing: NotRequired[dict[str, float]]  # factors of head and body, where gradients are of both
    seed: int
    format_version: int
    k: int
    k_v: int
    validation: ValidationSketch


class RunCorpus(TypedDict):
    """What was embedded."""

    root: str
    shards: int
    bytes: int


class RunHeader(TypedDict):
    """``run.json``; the last three are written when the run is finished."""

    format: str
    spec_version: int
    fingerprints: Fingerprints
    model: ModelFacts
    projection: Projection
    options: dict[str, Any]
    norm_kind: str
    corpus: RunCorpus
    packages: dict[str, str]
    totals: NotRequired[dict[str, Any]]
    files: NotRequired[dict[str, FileEntry]]
    run_id: NotRequired[str]


class LookaheadHeader(TypedDict):
    """``lookahead.json``."""

    format: str
    spec_version: int
    model: str
    weights: str
    corpus: str
    steps: int
    optimizer: str
    lr: float
    tokens: int
    max_tokens: int
    seed: int
    documents: int
    windows: int
    losses: list[float]


class ReplayTokens(TypedDict):
    """Predicted tokens of one epoch: asked for, Σ repeat · n_tokens, and what the cap on repeats left over."""

    requested: int
    realised: int
    shortfall: float


class Weighting(TypedDict):
    """How weights are realised."""

    realisation: str
    max_repeats: int
    replay_tokens: ReplayTokens
    weight_quantiles: NotRequired[list[float]]


class Order(TypedDict):
    """``kind`` corpus, curriculum or priority; the rest is there where it is priority."""

    kind: str
    seed: NotRequired[int]
    epochs: NotRequired[int]
    world_size: NotRequired[int]
    staleness: NotRequired[float]
    reports: NotRequired[list[dict[str, Any]]]


class ChosenBudget(TypedDict):
    """The budget as it was given, and in samples or tokens."""

    requested: str
    unit: str
    amount: int


class Selection(TypedDict):
    """How samples were chosen."""

    method: str
    options: dict[str, Any]
    scope: NotRequired[str]
    budget: NotRequired[ChosenBudget]
    report: NotRequired[dict[str, Any]]
    reports: NotRequired[list[dict[str, Any]]]


class Residuals(TypedDict, total=False):
    """How well gradients are matched; absent where that was not measured, None where the target is zero."""

    target_norm: float
    target_noise: float
    residual: float | None
    method_residual: float | None
    random_residual: float | None
    validation_residual: float | None
    method_validation_residual: float | None
    random_validation_residual: float | None


class Group(Residuals):
    """One group of one phase (0 where absent)."""

    group: str
    phase: NotRequired[int]
    population_samples: int
    population_tokens: int
    population_mass: float
    population_mass_error: NotRequired[float]  # its standard error; 0 without a pool
    target_mass: float
    budget: float
    selected_samples: int
    selected_tokens: int
    replay_tokens: int
    replay_requested: NotRequired[float]
    plays: NotRequired[int]
    played_samples: NotRequired[int]
    cut_tokens: NotRequired[float]
    shortfall: NotRequired[float]
    effective_tokens: NotRequired[float]
    weight_quantiles: NotRequired[list[float]]


class PhaseEntry(Residuals):
    """One phase."""

    phase: int
    mix_fraction: float | None
    samples: int
    tokens: int
    order: str
    replay_tokens: NotRequired[ReplayTokens]
    effective_tokens: NotRequired[float]
    weight_quantiles: NotRequired[list[float]]
    drawn_from_phase: NotRequired[int | None]
    runs: NotRequired[list[str]]


class Totals(TypedDict):
    """Sums over all shards, groups and phases; the population is counted once."""

    shards: NotRequired[int]
    population_samples: int
    population_tokens: int
    population_mass: float
    selected_samples: int
    selected_tokens: int
    replay_tokens: int
    plays: int
    effective_tokens: NotRequired[float]


class Damage(TypedDict):
    """What of a corpus could not be read when it was embedded: shards that are damaged, bytes lost, and all bytes."""

    shards: int
    bytes_lost: int
    bytes: int


class CorpusTokens(TypedDict):
    """Of a corpus of token ids: the id that ends a document and is no part of it, and how many ids the model has."""

    eod: int | None
    vocabulary: int


class ManifestCorpus(TypedDict):
    """Where the samples lie, and in what tokens they are counted."""

    root: str
    roots: NotRequired[list[str]]
    text_field: str
    id_field: str | None
    tokenizer: str
    split_special_tokens: NotRequired[bool]
    tokens: NotRequired[CorpusTokens]
    max_tokens: int
    damage: NotRequired[Damage]


class RunReference(TypedDict):
    """A run that a manifest was made from."""

    fingerprint: str
    run_id: NotRequired[str]
    path: NotRequired[str]


class Tool(TypedDict):
    """What wrote a manifest."""

    name: str
    version: str


class Provenance(TypedDict):
    """What a manifest was made from, and with."""

    runs: list[RunReference]
    model: dict[str, Any]
    tool: Tool
    packages: dict[str, str]
    history: NotRequired[list[str]]
    new: NotRequired[list[str]]


class ManifestBody(TypedDict):
    """What ``select`` and ``order`` say of a manifest."""

    required_features: list[str]
    weighting: Weighting
    order: Order
    selection: Selection
    groups: list[Group]
    totals: Totals
    phases: list[PhaseEntry]
    corpus: ManifestCorpus
    provenance: Provenance


class ManifestHeader(ManifestBody):
    """``manifest.json``: that, and what names it."""

    format: str
    spec_version: int
    manifest_id: str
    parent: str | None
    files: dict[str, DataFile]


class ExportFile(FileEntry):
    """A file of an export."""

    lines: int
    tokens: int


class Excluded(TypedDict):
    """What ``--exclude`` took out of an export."""

    entries_sha256: str | None
    samples: int
    lines: int
    tokens: int


class ExportMix(TypedDict):
    """With what a dataset of an export is mixed."""

    new_corpus: str
    fraction: float


class ExportPopulation(TypedDict):
    """What an export's samples were chosen from: corpus files, samples, predicted tokens."""

    shards: int
    samples: int
    tokens: int


class ExportGroup(TypedDict):
    """A group: tokens of the corpus for which it stands, and those that an epoch plays of it, or draws on average."""

    group: str
    mass: float
    tokens: int


class ExportDataset(TypedDict):
    """What an export is as a data set; ``fields`` are those of a play, the others facts of the manifest."""

    fields: list[str]
    license: str | None
    method: str
    budget: str | None
    model: str | None
    max_tokens: int
    population: ExportPopulation
    groups: list[ExportGroup]


class ExportHeader(TypedDict):
    """``export.json``; ``dataset`` is there where the format holds records, ``code`` where files read it."""

    format: str
    spec_version: int
    tool: NotRequired[Tool]
    parent: str
    to: str
    realisation: str
    fidelity: str
    instructions: str
    loses: list[str]
    files: dict[str, ExportFile]
    totals: dict[str, int]
    excluded: Excluded
    mix: NotRequired[dict[str, ExportMix]]
    code: NotRequired[list[str]]
    dataset: NotRequired[ExportDataset]


#: The model that targets or a Fisher information are of; ``of_manifest``: whether the manifest names it by fingerprint.
ModelAt = TypedDict(
    "ModelAt",
    {
        "source": str,
        "revision": str | None,
        "class": str,
        "vocab_size": int,
        "hidden_size": int,
        "dtype": str,
        "bos": str,
        "prefix": list[int],
        "weights": str,
        "tokenizer": str,
        "of_manifest": bool,
    },
)


class TargetsFile(FileEntry):
    """A file of teacher targets; 0 samples and tokens where it is not of samples."""

    samples: int
    tokens: int


class TargetsKind(TypedDict):
    """What targets are: ``width`` numbers a token; ``project`` and ``seed`` where hidden states were projected."""

    kind: str
    width: int
    project: int | None
    seed: int | None


class TargetsHeader(TypedDict):
    """``targets.json``; the last two are written when it is finished."""

    format: str
    spec_version: int
    parent: str
    model: ModelAt
    targets: TargetsKind
    options: dict[str, Any]
    packages: dict[str, str]
    files: NotRequired[dict[str, TargetsFile]]
    totals: NotRequired[dict[str, int]]


class FisherKind(TypedDict):
    """Whose labels: ``true`` those of the model, by ``seed``, ``empirical`` the text's; and what samples count."""

    kind: str
    weights: str
    seed: int | None


class FisherTotals(TypedDict):
    """Sums over the samples; ``nats`` is the mean loss a token under the labels, ``trace`` the sum of the diagonal."""

    samples: int
    tokens: int
    mass: float
    parameters: int
    nats: float
    trace: float


class FisherHeader(TypedDict):
    """``fisher.json``; the last two are written when it is finished."""

    format: str
    spec_version: int
    parent: str
    model: ModelAt
    fisher: FisherKind
    options: dict[str, Any]
    packages: dict[str, str]
    files: NotRequired[dict[str, FileEntry]]
    totals: NotRequired[FisherTotals]
