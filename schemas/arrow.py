"""Arrow schemas of every Parquet file.

Why the files are so: docs/design.md, Embedding run; docs/design.md, Replay manifest.

A schema here is the *required* part of a file. Readers ignore unknown columns; writers write exactly these, plus the
dictionary-encoded group columns of the run. ``check_schema`` is how a reader holds a file against its schema.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

SPEC_VERSION = 1
RUN_VERSION = 2  # of run.json and what stands beside it; 2 has checksums
RUN_VERSION_OF_IDS = 3  # of a corpus of token ids, whose windows have no place in a text

GROUP_TYPE = pa.dictionary(pa.int32(), pa.string())
HASH_TYPE = pa.binary(16)

# How a sample is found again in the corpus; shared by embedding rows and manifest rows.
LOCATOR_FIELDS: list[pa.Field] = [
    pa.field("sample_id", pa.string(), nullable=False),
    pa.field("doc_key", pa.string(), nullable=False),
    pa.field("doc_id", pa.string()),
    pa.field("shard_id", pa.int32(), nullable=False),
    pa.field("row_index", pa.int64(), nullable=False),
    pa.field("window", pa.int32(), nullable=False),
    pa.field("byte_offset", pa.int64()),
    pa.field("byte_length", pa.int64()),
    pa.field("char_start", pa.int64()),
    pa.field("char_end", pa.int64()),
    pa.field("token_start", pa.int32(), nullable=False),
    pa.field("token_count", pa.int32(), nullable=False),
    pa.field("n_tokens", pa.int32(), nullable=False),
    pa.field("content_hash", HASH_TYPE, nullable=False),
]
LOCATOR_COLUMNS = [field.name for field in LOCATOR_FIELDS]


def embeddings_schema(k: int, k_val: int, storage: str, groups: list[str], base_loss: bool = False) -> pa.Schema:
    """Schema of ``embeddings/<shard>-<block>.parquet``: one row a sample, in corpus order.

    Args:
        k: length of the sketch.
        k_val: length of the validation sketch.
        storage: ``float16`` (direction as it is) or ``int8`` (direction = int8 * direction_scale).
        groups: names of the group columns, in the order of ``--group-by``.
        base_loss: whether losses at the model before a lookahead are there.
    """
    if storage == "float16":
        half = pa.field("element", pa.float16(), nullable=False)
        direction = [pa.field("direction", pa.list_(half, k), nullable=False)]
    elif storage == "int8":
        direction = [
            pa.field("direction", pa.list_(pa.field("element", pa.int8(), nullable=False), k), nullable=False),
            pa.field("direction_scale", pa.float32(), nullable=False),
        ]
    else:
        raise ValueError(f"storage must be float16 or int8, not {storage!r}")
    return pa.schema(
        [
            *LOCATOR_FIELDS,
            pa.field("pool_prob", pa.float64(), nullable=False),
            *[pa.field(name, GROUP_TYPE) for name in groups],
            pa.field("loss_sum", pa.float32(), nullable=False),
            *([pa.field("base_loss_sum", pa.float32(), nullable=False)] if base_loss else []),
            pa.field("grad_norm", pa.float32(), nullable=False),
            pa.field("sketch_norm", pa.float32(), nullable=False),
            pa.field("validation_norm", pa.float32(), nullable=False),
            *direction,
            pa.field("validation", pa.list_(pa.field("element", pa.float16(), nullable=False), k_val), nullable=False),
        ]
    )


REJECTS = pa.schema(
    [
        pa.field("shard_id", pa.int32(), nullable=False),
        pa.field("row_index", pa.int64(), nullable=False),
        pa.field("window", pa.int32()),  # null: the whole row
        pa.field("byte_offset", pa.int64()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("first_bytes", pa.binary()),
    ]
)

COUNT_COLUMNS = [
    "rows_read",
    "rows_kept",
    "rows_rejected",
    "rows_not_drawn",
    "rows_excluded",
    "bytes_lost",  # of the shard as stored: never read, or in a compressed member whose end is missing
    "rows_special",  # of the rows kept, those whose text became a special token
    "windows",
    "windows_embedded",
    "windows_rejected",
    "windows_excluded",
    "tokens",  # Σ token_count of embedded windows
    "n_tokens",  # Σ predicted tokens of embedded windows
]

UNITS = pa.schema(
    [
        pa.field("shard_id", pa.int32(), nullable=False),
        pa.field("block", pa.int32(), nullable=False),
        *[pa.field(name, pa.int64(), nullable=False) for name in COUNT_COLUMNS],
        # of the unit's file of embeddings, and of that of its rejects
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("footer_sha256", pa.string(), nullable=False),
        pa.field("rejects_sha256", pa.string(), nullable=False),
    ]
)

RUN_SHARDS = pa.schema(
    [
        pa.field("shard_id", pa.int32(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),  # where it was read
        pa.field("path", pa.string(), nullable=False),  # relative to the corpus root; what doc_key hashes
        pa.field("format", pa.string(), nullable=False),  # a name of pipeline/corpus/formats/registry.py
        pa.field("compression", pa.string(), nullable=False),  # none | gzip | zstd
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("bytes_lost", pa.int64(), nullable=False),  # all, where nothing of the shard could be used
    ]
)

# Behind RUN_SHARDS and REPLAY_SHARDS where a shard can't be read without a file beside it, such as the .idx of a .bin.
COMPANION_FIELDS: list[pa.Field] = [
    pa.field("companion_bytes", pa.int64()),
    pa.field("companion_sha256", pa.string()),
]


def with_companions(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Schema:
    """Schema of ``shards.parquet`` with these rows: RUN_SHARDS or REPLAY_SHARDS, and companions where there are any."""
    there = any(row.get("companion_sha256") is not None for row in rows)
    return pa.schema([*schema, *COMPANION_FIELDS]) if there else schema


# cells.parquet of a run: what `select` needs to know of each cell to plan, so that it need not read embeddings for that
CELLS = pa.schema(
    [
        pa.field("group_by", pa.string()),  # the column; null: all samples of a shard are one group
        pa.field("beta", pa.float64()),  # exponent of the rise of losses in choice_mass; null: that is the mass
        pa.field("shard_id", pa.int32(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),  # Σ n_tokens
        pa.field("mass", pa.float64(), nullable=False),  # Σ n_tokens / pool_prob
        pa.field("mass_variance", pa.float64(), nullable=False),  # over pools
        pa.field("longest_tokens", pa.int64(), nullable=False),
        pa.field("choice_mass", pa.float64(), nullable=False),
        pa.field("choice_norm", pa.float64(), nullable=False),  # Σ choice_mass · grad_norm / n_tokens
        pa.field("rise", pa.float64(), nullable=False),  # Σ mass · rise; 0 without base losses
        pa.field("mean_square", pa.float64(), nullable=False),  # Σ mass · |g / n_tokens|²
    ]
)

# samples/<shard>.parquet of a replay manifest: locator columns and what was decided about the sample.
SAMPLES = pa.schema(
    [
        *LOCATOR_FIELDS,
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("inclusion_prob", pa.float64(), nullable=False),
        pa.field("loss_weight", pa.float64(), nullable=False),
        pa.field("repeat", pa.int32(), nullable=False),
        pa.field("phase", pa.int16(), nullable=False),
        pa.field("order_rank", pa.int64(), nullable=False),
        pa.field("group", GROUP_TYPE, nullable=False),
        pa.field("method", GROUP_TYPE, nullable=False),
        pa.field("grad_norm", pa.float32(), nullable=False),
        pa.field("score", pa.float32()),
    ]
)

REPLAY_SHARDS = pa.schema(
    [
        pa.field("shard_id", pa.int32(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("compression", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),  # physical rows that were read, bad and blank ones counted
        pa.field("population_samples", pa.int64(), nullable=False),
        pa.field("population_tokens", pa.int64(), nullable=False),
        pa.field("population_mass", pa.float64(), nullable=False),
        pa.field("selected_samples", pa.int64(), nullable=False),
        pa.field("selected_tokens", pa.int64(), nullable=False),
        pa.field("selected_mass", pa.float64(), nullable=False),
        pa.field("replay_tokens", pa.int64(), nullable=False),  # Σ repeat * n_tokens
        # written by `order`, null before: proposal, priority of epoch 0 and place in epoch 0
        pa.field("q", pa.float64()),
        pa.field("priority", pa.float64()),
        pa.field("order", pa.int64()),
    ]
)

# Behind REPLAY_SHARDS, but for manifests of older releases: what each phase plays of the shard, so that an order need
# not read its samples; a phase that plays nothing of it is left out. c is what counts in the loss: repeat, or
# loss_weight where that realises the weights.
VISITS = pa.field(
    "visits",
    pa.list_(
        pa.field(
            "element",
            pa.struct(
                [
                    pa.field("phase", pa.int16(), nullable=False),
                    pa.field("x", pa.float64(), nullable=False),  # Σ c * grad_norm
                    pa.field("t", pa.float64(), nullable=False),  # Σ c * n_tokens
                    # of pass 1, 2, ...: samples with repeat >= pass, and their Σ n_tokens
                    pa.field("samples", pa.list_(pa.field("element", pa.int64(), nullable=False)), nullable=False),
                    pa.field("tokens", pa.list_(pa.field("element", pa.int64(), nullable=False)), nullable=False),
                ]
            ),
            nullable=False,
        )
    ),
)

# data/**.parquet of an export: one row a play, in the order of play.
PLAYS = pa.schema(
    [
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("loss_weight", pa.float64(), nullable=False),
        pa.field("repeat", pa.int32(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)

# replay.parquet of an export --to hf-indices: one row a play, which is a whole row of the corpus.
PLACES = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),  # of the row, counted through all files of the corpus by path
        *(field for field in PLAYS if field.name != "text"),
    ]
)

# The same as PLAYS, with the token ids that were embedded, and these alone where the corpus has no texts.
PLAYS_WITH_IDS = PLAYS.append(pa.field("input_ids", pa.list_(pa.field("element", pa.int32())), nullable=False))
PLAYS_OF_IDS = PLAYS_WITH_IDS.remove(PLAYS_WITH_IDS.get_field_index("text"))


def targets_schema(kind: str, width: int) -> pa.Schema:
    """Schema of ``data/<shard>-<part>.parquet`` of ``cptsel distill``: one row a sample, in corpus order.

    Lists have an entry a predicted token, in order: position t is of the model's position t, whose input is BOS or EOS
    (where the model has one) and then the window's tokens.

    Args:
        kind: ``logits`` or ``hidden``.
        width: k of the top k, or numbers of a hidden state.
    """
    half = pa.float16()
    if kind == "logits":
        targets = [
            pa.field("top_ids", _list_of(_rows_of(pa.int32(), width)), nullable=False),  # most likely first
            pa.field("top_log_probs", _list_of(_rows_of(half, width)), nullable=False),  # nats
            pa.field("rest_log_prob", _list_of(half), nullable=False),  # nats, of all other tokens together
        ]
    elif kind == "hidden":
        targets = [pa.field("hidden", _list_of(_rows_of(half, width)), nullable=False)]
    else:
        raise ValueError(f"kind must be logits or hidden, not {kind!r}")
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("shard_id", pa.int32(), nullable=False),
            pa.field("row_index", pa.int64(), nullable=False),
            pa.field("token_start", pa.int32(), nullable=False),
            pa.field("n_tokens", pa.int32(), nullable=False),
            pa.field("input_ids", _list_of(pa.int32()), nullable=False),  # the window's own, as they were embedded
            *targets,
        ]
    )


def projection_schema(numbers: int) -> pa.Schema:
    """Schema of ``projection.parquet``: one row a number of the hidden state, by which states are multiplied."""
    return pa.schema([pa.field("row", _rows_of(pa.float32(), numbers), nullable=False)])


def _list_of(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False))


def _rows_of(kind: pa.DataType, width: int) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False), width)


# The file of ``cptsel report --map``: one row a point of the map, for viewers of embeddings.
MAP = pa.schema(
    [
        pa.field("x", pa.float32(), nullable=False),
        pa.field("y", pa.float32(), nullable=False),
        pa.field("text", pa.string()),  # null where it is not at hand
        pa.field("group", pa.string(), nullable=False),
        pa.field("weight", pa.float64()),  # null where it was not chosen
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("chosen", pa.bool_(), nullable=False),
        pa.field("plays", pa.int32(), nullable=False),  # in an epoch
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("loss", pa.float32(), nullable=False),  # nats a token, of the model that embedded it
        pa.field("rise", pa.float32()),  # nats a token, from the model before a lookahead; null where that is not known
        pa.field("other_weight", pa.float64()),  # the same of a second selection; null where there is none
        pa.field("other_chosen", pa.bool_()),
        pa.field("other_plays", pa.int32()),
    ]
)

# A user's CSV of small trainings, for cptsel plan: one row a training.
TRAININGS = pa.schema(
    [
        pa.field("replay_tokens", pa.float64(), nullable=False),  # not negative; 0 is a training without replay
        pa.field("rise", pa.float64(), nullable=False),  # of the old corpus's held-out loss, in any unit
    ]
)

# schedule/<phase>-<epoch>.parquet: one row a visit of a shard, sorted by (rank, position).
SCHEDULE = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),  # 0, 1, ... within the rank
        pa.field("shard_id", pa.int32(), nullable=False),
        pa.field("pass", pa.int16(), nullable=False),  # plays the samples with repeat >= pass; 1, 2, ...
        pa.field("order", pa.int64(), nullable=False),  # place in the global order of the epoch, all ranks together
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("q", pa.float64(), nullable=False),
        pa.field("priority", pa.float64(), nullable=False),  # q / u
    ]
)


def check_schema(actual: pa.Schema, required: pa.Schema) -> str | None:
    """Say in a phrase how ``actual`` falls short of ``required``, or None. Unknown columns are ignored."""
    for field in required:
        index = actual.get_field_index(field.name)
        if index < 0:
            return f"column {field.name!r} is missing"
        if not _same_type(actual.field(index).type, field.type):
            return f"column {field.name!r} is {actual.field(index).type}, not {field.type}"
    return None


def _same_type(actual: pa.DataType, required: pa.DataType) -> bool:
    """Equal up to the name and nullability of list elements, which Parquet writers choose for themselves."""
    if pa.types.is_fixed_size_list(required):
        return (
            pa.types.is_fixed_size_list(actual)
            and actual.list_size == required.list_size
            and actual.value_type == required.value_type
        )
    if pa.types.is_dictionary(required):
        return (
            actual == required
            or actual == required.value_type
            or (pa.types.is_dictionary(actual) and actual.value_type == required.value_type)
        )
    return bool(actual == required)
