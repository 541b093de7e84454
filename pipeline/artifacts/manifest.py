"""The replay manifest as a directory: how one is finished, and how one is opened (docs/design.md, Replay manifest).

The Parquet files are written first, by whoever makes the manifest; ``finish_manifest`` hashes them, names the whole by
its ``manifest_id`` and writes ``_SUCCESS`` last. A directory with ``_SUCCESS`` never changes again.
"""

import copy
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.consuming import consuming_page
from cptsel.pipeline.artifacts.file_lists import canonical, pretty
from cptsel.pipeline.artifacts.writing import commit
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.kernels.sampling.weights import REQUIRED_FEATURES
from cptsel.schemas.arrow import SPEC_VERSION
from cptsel.schemas.headers import DataFile, Group, ManifestBody, ManifestHeader, PhaseEntry, ReplayTokens
from cptsel.schemas.validation import validate

FORMAT = "cptsel.replay"
MANIFEST = "manifest.json"
CONSUMING = "CONSUMING.md"
SHARDS = "shards.parquet"
ALL = "all"  # the one group of a selection without --group-by
NO_GROUP = "(none)"  # the group of samples whose group column is null
TOKEN_IDS = "token_ids"  # the feature of a manifest whose samples are windows of token ids
SUPPORTED_FEATURES: frozenset[str] = frozenset((TOKEN_IDS,)).union(*REQUIRED_FEATURES.values())

_NOTHING: Mapping[str, DataFile] = MappingProxyType({})

_SAMPLES = re.compile(r"samples/(\d{6,})\.parquet")
_SCHEDULE = re.compile(r"schedule/(\d+)-(\d+)\.parquet")


def required_features(realisation: str, of_ids: bool) -> list[str]:
    """What a reader of a manifest must know.

    Args:
        realisation: of weights.
        of_ids: whether its corpus is one of token ids.
    """
    return [*REQUIRED_FEATURES[realisation], *([TOKEN_IDS] if of_ids else [])]


def samples_name(shard_id: int) -> str:
    """Path, in a manifest, of the samples that were selected from a shard."""
    return f"samples/{shard_id:06d}.parquet"


def schedule_name(phase: int, epoch: int) -> str:
    """Path, in an ordered manifest, of the schedule of one epoch of a phase."""
    return f"schedule/{phase}-{epoch}.parquet"


@dataclass(frozen=True)
class Manifest:
    """An opened replay manifest: its directory and the validated ``manifest.json``."""

    directory: str
    header: ManifestHeader

    @property
    def manifest_id(self) -> str:
        return str(self.header["manifest_id"])

    @property
    def phases(self) -> list[int]:
        return sorted(entry["phase"] for entry in self.header["phases"])

    @property
    def realisation(self) -> str:
        """How weights are realised: a key of kernels.sampling.weights.REQUIRED_FEATURES."""
        return str(self.header["weighting"]["realisation"])

    def curricula(self) -> dict[int, str]:
        """What ``order_rank`` follows, of the phases in which that is not the corpus."""
        order = {entry["phase"]: str(entry["order"]) for entry in self.header["phases"]}
        return {phase: order[phase] for phase in self.phases if order[phase] != "corpus"}

    @property
    def text_field(self) -> str:
        return str(self.header["corpus"]["text_field"])

    @property
    def of_ids(self) -> bool:
        """Whether its corpus is one of token ids, and not of texts."""
        return "tokens" in self.header["corpus"]

    def path(self, name: str) -> str:
        """Where a file of this manifest lies."""
        return io.join(self.directory, name)

    def sample_files(self) -> dict[int, str]:
        """Path within the manifest of each shard's samples, by ascending shard_id."""
        found = ((_SAMPLES.fullmatch(name), name) for name in self.header["files"])
        return dict(sorted((int(match[1]), name) for match, name in found if match))

    def files_by_path(self) -> dict[str, list[str]]:
        """Paths within the manifest of the samples of each corpus file, by its path below the root, ascending.

        Pools of one corpus have a shard, and so samples, of each file.
        """
        shards, files = self.shards(), self.sample_files()
        paths = dict(zip(shards["shard_id"].to_pylist(), shards["path"].to_pylist(), strict=True))
        found: dict[str, list[str]] = {}
        for shard_id, name in sorted(files.items(), key=lambda one: (paths[one[0]], one[0])):
            found.setdefault(paths[shard_id], []).append(name)
        return found

    def schedule_files(self) -> dict[tuple[int, int], str]:
        """Path within the manifest of each schedule, by ascending (phase, epoch); empty before ``order``."""
        found = ((_SCHEDULE.fullmatch(name), name) for name in self.header["files"])
        return dict(sorted(((int(match[1]), int(match[2])), name) for match, name in found if match))

    def data(self, name: str) -> bytes:
        """One of the data files, which must be the one that was written (see ``read_data_file``)."""
        return read_data_file(self.path(name), self.header["files"][name]["sha256"])

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Rows of one of the data files."""
        return parse_table(self.data(name), columns)

    def shards(self) -> pa.Table:
        """The table of shards (schemas.arrow.REPLAY_SHARDS)."""
        return self.table(SHARDS)


def read_data_file(path: str, sha256: str) -> bytes:
    """A data file of a manifest, which must be the one that was written.

    Raises:
        VerificationError: it is missing or its bytes differ.
    """
    if not io.exists(path):
        raise VerificationError(f"{path} is missing; restore it or make the manifest again")
    data = io.read_bytes(path)
    if outputs.sha256(data) != sha256:
        raise VerificationError(f"{path} is not the file that was written (its SHA-256 differs); restore it")
    return data


def parse_table(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Rows of a Parquet file that was read whole."""
    return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=False)  # as in io.read_parquet


def source_uri(shard: dict[str, Any], root: str | None) -> str:
    """Where to read a shard of the corpus: as recorded, or by its relative path below ``root`` where it was moved."""
    return str(shard["uri"]) if root is None else io.join(io.absolute(root), shard["path"])


def manifest_id(header: ManifestHeader) -> str:
    """SHA-256, in hex, of the header's RFC 8785 canonical form without the field ``manifest_id``."""
    digest = hashlib.sha256()
    for piece in canonical({k: v for k, v in header.items() if k != "manifest_id"}):
        digest.update(piece)
    return digest.hexdigest()


def finish_manifest(
    out: str,
    header: ManifestBody,
    config_yaml: str,
    stats: dict[str, Any],
    command: str = "select",
    known: Mapping[str, DataFile] = _NOTHING,
) -> ManifestHeader:
    """Complete a manifest whose Parquet files lie under ``out``, writing ``_SUCCESS`` last.

    Args:
        out: directory that holds ``shards.parquet``, ``samples/`` and, after ordering, ``schedule/``.
        header: ``manifest.json`` without ``format``, ``spec_version``, ``manifest_id`` and ``files``; ``parent`` and
            ``required_features`` may be left out. Equal runs must give equal headers: no times, hosts or output paths.
        config_yaml: effective configuration of the command.
        stats: seconds, memory and the like for ``stats.json``.
        command: the command that made the manifest.
        known: what ``manifest.json`` says of files whose bytes this call has held against their hashes.

    Returns:
        The whole header, as written.

    Raises:
        ValueError: the header does not meet its schema (a fault of the caller, never of the user).
    """
    given = copy.deepcopy({key: value for key, value in header.items() if key != "files"})  # those of a parent, if any
    body: dict[str, Any] = {"parent": None, "required_features": [], **given}
    body |= {"format": FORMAT, "spec_version": SPEC_VERSION, "files": _data_files(out, known), "manifest_id": "0" * 64}
    whole = validate(body, "manifest")
    whole["manifest_id"] = manifest_id(whole)
    validate(stats, "stats")
    with io.atomic_writer(io.join(out, MANIFEST)) as handle:
        for piece in pretty(whole):
            handle.write(piece)
    io.write_bytes(io.join(out, CONSUMING), consuming_page(whole).encode())
    sums = {name: entry["sha256"] for name, entry in whole["files"].items()}
    sums |= {name: digest for name, (digest, _) in outputs.hash_files(out, [MANIFEST, CONSUMING]).items()}
    io.write_bytes(io.join(out, outputs.SUMS), outputs.sums_text(sums).encode())
    outputs.write_config(out, command, config_yaml)
    io.write_json(io.join(out, outputs.STATS), stats)
    commit(out)
    return whole


def _data_files(out: str, known: Mapping[str, DataFile]) -> dict[str, DataFile]:
    """Hash, size and row count of every Parquet file of a manifest; the known ones are not read."""
    names = [SHARDS] + [
        f"{folder}/{name}"
        for folder in ("samples", "schedule")
        for name in io.list_names(io.join(out, folder), ".parquet")
    ]
    entries = {name: known[name] for name in names if name in known}
    for name, (digest, size) in outputs.hash_files(out, [name for name in names if name not in known]).items():
        with io.open_read(io.join(out, name)) as handle:
            rows = pq.ParquetFile(handle).metadata.num_rows
        entries[name] = {"sha256": digest, "bytes": size, "rows": rows}
    return entries


def load_manifest(directory: str) -> Manifest:
    """Open a finished replay manifest.

    Raises:
        UsageError: not a replay manifest, not finished, or of a version or with a feature this release can't read.
        VerificationError: ``manifest.json`` breaks its schema or is not what ``manifest_id`` names.
    """
    directory = io.absolute(directory)
    path = io.join(directory, MANIFEST)
    if not io.exists(path):
        maker = outputs.made_by(directory)
        hint = f"cptsel {maker} wrote it" if maker else "it has no manifest.json"
        if maker in {"select", "order"}:
            hint += " and has not finished"
        raise UsageError(f"{directory} is not a replay manifest: {hint}; name the output of cptsel select or order")
    found = io.read_json(path)
    check_readable(path, found)
    if not io.exists(io.join(directory, outputs.SUCCESS)):
        raise UsageError(f"{directory} is not finished (no _SUCCESS); run the command that writes it again")
    try:
        header = validate(found, "manifest")
    except ValueError as error:
        raise VerificationError(f"{directory}: {error}; restore the manifest or make it again") from error
    if manifest_id(header) != header["manifest_id"]:
        raise VerificationError(
            f"{path}: was changed after it was written (manifest_id does not match); restore it or make it again"
        )
    return Manifest(directory, header)


def replay_tokens(header: ManifestHeader, phase: PhaseEntry) -> ReplayTokens | None:
    """Tokens of a phase that are asked for, realised and fall short: its own, or the whole's where it is the only one.

    Args:
        header: ``manifest.json``; phase: one of its ``phases``.
    """
    whole = header["weighting"]["replay_tokens"] if len(header["phases"]) == 1 else None
    return phase.get("replay_tokens", whole)


def groups_of(header: ManifestHeader, phase: int) -> list[Group]:
    """What ``manifest.json`` says of the groups of a phase."""
    return [group for group in header["groups"] if group.get("phase", 0) == phase]


def check_readable(path: str, header: Any) -> None:
    """Refuse a ``manifest.json`` that this release must not interpret.

    Raises:
        UsageError: another format, a newer spec_version, or an unknown entry in required_features.
    """
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise UsageError(f"{path}: format is {found!r}, not {FORMAT!r}; name the output of cptsel select or order")
    version = header.get("spec_version")
    if isinstance(version, int) and version > SPEC_VERSION:
        raise UsageError(f"{path}: spec_version {version} is newer than this cptsel reads ({SPEC_VERSION}); upgrade it")
    needed = header.get("required_features")
    unknown = sorted(set(map(str, needed)) - SUPPORTED_FEATURES) if isinstance(needed, list) else []
    if unknown:
        raise UsageError(f"{path}: needs {', '.join(unknown)}, which this cptsel does not know; upgrade it")
