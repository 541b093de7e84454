"""Small finished replay manifests over a small real corpus on disk, made without embed or select."""

import gzip
import json
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from corpus_builders import PACK, mds_bytes, tar_bytes

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.consuming import consuming_page
from cptsel.pipeline.artifacts.manifest import finish_manifest, load_manifest, manifest_id, samples_name
from cptsel.pipeline.artifacts.visits import tally
from cptsel.pipeline.hashing import content_hash, doc_key, sample_id, uniform
from cptsel.pipeline.kernels.sampling.curriculum import curriculum_rank
from cptsel.pipeline.kernels.sampling.repeats import (
    Chunk,
    capped_rates,
    repeat_purpose,
    replay_scales,
    systematic_repeats,
)
from cptsel.pipeline.kernels.sampling.weights import REQUIRED_FEATURES, loss_factor
from cptsel.schemas.arrow import REPLAY_SHARDS, SAMPLES, VISITS

WORDS = ["replay", "старий", "корпус", "の", "データ", "naïve", "gradient", "𝔘nicode", "🙂", "token", "a", "mass", "ß"]
FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "jsonl", "arrow", "mds", "mds.zst", "tar", "tar.gz")
MAX_TOKENS = 8
SEED = 0


@dataclass
class Built:
    """What was built: the corpus, the manifest, and every chosen sample with its text as plain dicts."""

    corpus: Path
    replay: Path
    header: dict[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)

    def plays(self) -> list[tuple[str, str, int]]:
        """(sample_id, text, repetition) of every play of one epoch, sorted."""
        return sorted((s["sample_id"], s["text"], c) for _, s, c in self.sequence())

    def sequence(self, phase: int | None = None) -> list[tuple[int, dict[str, Any], int]]:
        """(phase, sample, pass) of every play without a schedule, in order: phase by phase, pass by pass, by rank."""
        plays = [(s, c + 1) for s in self.samples for c in range(s["repeat"]) if phase in (None, s["phase"])]
        plays.sort(key=lambda play: (play[0]["phase"], play[1], play[0]["order_rank"]))
        return [(s["phase"], s, c) for s, c in plays]


def build_replay(
    directory: Path,
    *,
    shards: int = 5,
    documents: int = 12,
    seed: int = 0,
    max_repeats: int = 4,
    keep: float = 0.5,
    phases: int = 1,
    realisation: str = "repeat",
    curriculum: bool = False,
    uids: bool = False,
) -> Built:
    """Write a corpus (formats in turn), choose windows at random, and finish a manifest over them.

    Shard ``i`` has ``documents * (1 + i % 3)`` documents, so shards differ in size. Weights add up to each group's
    target mass; repeats play 1.4 times the chosen tokens, draws as many. Every phase has a choice of its own; a
    curriculum orders every second one, the first included, by falling norm a token, in four buckets. With ``uids`` the
    manifest names documents by 32 hex digits.
    """
    rng = random.Random(seed)
    corpus, replay = directory / "corpus", directory / "replay"
    population: list[dict[str, Any]] = []
    shard_rows = []
    for shard in range(shards):
        texts = [_text(rng) for _ in range(documents * (1 + shard % 3))]
        kind = FORMATS[shard % len(FORMATS)]
        path = corpus / f"part-{shard:02d}.{kind}"
        offsets = _write_shard(path, kind, texts)
        shard_rows.append({"shard_id": shard, "path": path.name, "uri": str(path), **_stored(path, kind)})
        shard_rows[-1]["rows"] = texts_rows(texts)[-1][0] + 1
        for (row, text), (offset, length) in zip(texts_rows(texts), offsets, strict=True):
            population += _windows(rng, shard, path.name, row, text, offset, length)
    if uids:
        for s in population:
            s["doc_id"] = f"{s['shard_id']:016x}{s['row_index']:016x}"
    chosen = []
    for phase in range(phases):
        picked = [{**s, "phase": phase} for s in population if rng.random() < keep or s["first_of_group"]]
        _decide(rng, population, picked, phase, realisation, max_repeats)
        if curriculum and phase % 2 == 0:
            _rank(picked)
        chosen += picked
    header = _write(replay, shard_rows, population, chosen, max_repeats, corpus, realisation, curriculum)
    return Built(corpus, replay, header, chosen)


def recommending(built: Built, folder: Path, *fractions: float) -> Path:
    """The same manifest in another folder, with a share of replay for each phase."""
    shutil.copytree(built.replay, folder)
    header = json.loads((folder / "manifest.json").read_text())
    for entry, fraction in zip(header["phases"], fractions, strict=True):
        entry["mix_fraction"] = fraction
    header["manifest_id"] = manifest_id(header)
    (folder / "manifest.json").write_text(json.dumps(header))
    return folder


def texts_rows(texts: list[str]) -> list[tuple[int, str]]:
    """Physical rows of a shard's documents: line formats have a blank line before every fifth document."""
    return [(index + index // 5, text) for index, text in enumerate(texts)]


def _text(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 40)))


def _write_shard(path: Path, kind: str, texts: list[str]) -> list[tuple[int | None, int | None]]:
    """Write one corpus file; byte offset and length of each document's line or members (None where there are none)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = texts_rows(texts)
    if kind in ("parquet", "arrow", "mds", "mds.zst", "tar", "tar.gz"):
        column: list[str | None] = [None] * (rows[-1][0] + 1)
        for row, text in rows:
            column[row] = text
        ids = [f"{path.stem}/{row}" for row in range(len(column))]
        if kind.startswith("mds"):
            samples = [[i.encode(), (text or "").encode()] for i, text in zip(ids, column, strict=True)]
            path.write_bytes(PACK[path.suffix](mds_bytes(samples, [("id", "str", None), ("text", "str", None)])))
            return [(None, None)] * len(rows)
        if kind.startswith("tar"):
            samples = [
                [(f"{row}.txt", (text or "").encode()), (f"{row}.json", json.dumps({"id": name}).encode())]
                for row, (name, text) in enumerate(zip(ids, column, strict=True))
            ]
            path.write_bytes(PACK[path.suffix](tar_bytes([member for sample in samples for member in sample])))
            sizes = [sum(512 + -(-len(data) // 512) * 512 for _, data in sample) for sample in samples]
            return [(sum(sizes[:row]), sizes[row]) for row, _ in rows]
        table = pa.table({"id": ids, "text": column})
        if kind == "parquet":
            pq.write_table(table, path, row_group_size=7)
        else:
            with pa.ipc.new_stream(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=7)
        return [(None, None)] * len(rows)
    data, offsets = b"", []
    for index, (row, text) in enumerate(rows):
        data += b"\n" if index and index % 5 == 0 else b""
        line = json.dumps({"id": f"{path.stem}/{row}", "text": text}, ensure_ascii=index % 2 == 0).encode() + b"\n"
        offsets.append((len(data), len(line) - 1))
        data += line
    half = len(data) // 2
    if kind == "jsonl.gz":  # two members, as concatenated dumps have
        data = gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0)
    elif kind == "jsonl.zst":  # two frames
        data = zstandard.compress(data[:half]) + zstandard.compress(data[half:])
    path.write_bytes(data)
    return list(offsets)


def _stored(path: Path, kind: str) -> dict[str, Any]:
    digest, size = outputs.hash_file(str(path))
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix, "none")
    format = {"tar": "webdataset"}.get(kind.split(".")[0], kind.split(".")[0])
    return {"format": format, "compression": compression, "bytes": size, "sha256": digest}


def _windows(
    rng: random.Random, shard: int, path: str, row: int, text: str, offset: int | None, length: int | None
) -> list[dict[str, Any]]:
    """Windows of MAX_TOKENS words that tile a text, as population rows."""
    key, words, rows, start = doc_key(path, row), text.split(" "), [], 0
    for window, first in enumerate(range(0, len(words), MAX_TOKENS)):
        part = words[first : first + MAX_TOKENS]
        end = start + len(" ".join(part)) + (1 if first else 0)
        rows.append(
            {
                "sample_id": sample_id(key, start, end), "doc_key": key, "doc_id": f"{Path(path).stem}/{row}",
                "shard_id": shard, "row_index": row, "window": window, "byte_offset": offset, "byte_length": length,
                "char_start": start, "char_end": end, "token_start": first, "token_count": len(part),
                "n_tokens": len(part), "content_hash": content_hash(text[start:end].encode()),
                "inclusion_prob": 0.5, "phase": 0, "group": "even" if row % 2 == 0 else "odd", "method": "uniform",
                "grad_norm": np.float32(rng.uniform(0.5, 9.0)).item(), "score": None, "text": text[start:end],
                "first_of_group": shard == 0 and window == 0 and row < 2,
            }
        )  # fmt: skip
        start = end
    return rows


def _decide(
    rng: random.Random, population: list[dict], chosen: list[dict], phase: int, realisation: str, max_repeats: int
) -> None:
    """Fill weight, loss_weight, repeat and order_rank of the samples chosen for a phase, as ``select`` makes them."""
    mass = float(sum(s["n_tokens"] for s in population))
    for group in ("even", "odd"):
        members = [s for s in chosen if s["group"] == group]
        raw = [rng.uniform(0.1, 5.0) for _ in members]
        target = sum(s["n_tokens"] for s in population if s["group"] == group)
        for sample, share in zip(members, raw, strict=True):
            sample["weight"] = target * share / sum(raw) / sample["n_tokens"]
        repeats = [1] * len(members)
        if realisation == "repeat":
            (u,) = uniform(SEED, repeat_purpose(phase), [group])
            repeats = _repeats(members, _requested(chosen, realisation) * (target / mass), max_repeats, float(u))
        for sample, repeat in zip(members, repeats, strict=True):
            sample["repeat"] = repeat
    weight, n_tokens = (np.array([s[key] for s in chosen]) for key in ("weight", "n_tokens"))
    factor = loss_factor(int(n_tokens.sum()), float(weight @ n_tokens))
    for place, sample in enumerate(chosen):
        sample["loss_weight"] = sample["weight"] * factor if realisation in {"repeat", "loss"} else 1.0
        sample["order_rank"] = place


def _repeats(members: list[dict], tokens: float, cap: int, u: float) -> list[int]:
    """Plays of the samples of a group, which are in corpus order."""
    weight, n_tokens = (np.array([s[key] for s in members]) for key in ("weight", "n_tokens"))
    cell = np.unique([s["shard_id"] for s in members], return_inverse=True)[1]
    group = np.zeros(cell.max() + 1, np.int64)
    scales = replay_scales(lambda: [Chunk(cell, weight, n_tokens)], group, np.array([tokens]), cap)
    order = sorted(range(len(members)), key=lambda place: members[place]["sample_id"])
    counts, _ = systematic_repeats(capped_rates(weight, scales.scale[0], cap)[order], u)
    return [int(counts[order.index(place)]) for place in range(len(members))]


def _rank(chosen: list[dict]) -> None:
    """Order the samples of a phase by falling norm a token, in four buckets."""
    by_id = sorted(chosen, key=lambda s: s["sample_id"])
    u = uniform(SEED, f"curriculum {chosen[0]['phase']}", [s["sample_id"] for s in by_id])
    rank = curriculum_rank(
        np.array([float(np.float32(s["grad_norm"])) / s["n_tokens"] for s in by_id]),
        descending=True,
        buckets=4,
        u=u,
    )
    for sample, place in zip(by_id, rank.tolist(), strict=True):
        sample["order_rank"] = place


def _requested(chosen: list[dict], realisation: str) -> int:
    """Replay tokens asked for: with repeats, some samples then reach the cap, and some play nothing."""
    tokens = sum(s["n_tokens"] for s in chosen)
    return tokens * 7 // 5 if realisation in {"repeat", "sampling"} else tokens


def _tally(rows: list[dict], what: str) -> dict[str, Any]:
    if what == "population":
        tokens = sum(s["n_tokens"] for s in rows)
        return {"population_samples": len(rows), "population_tokens": tokens, "population_mass": float(tokens)}
    return {
        "selected_samples": len(rows),
        "selected_tokens": sum(s["n_tokens"] for s in rows),
        "replay_tokens": sum(s["n_tokens"] * s["repeat"] for s in rows),
    }


def _write(
    replay: Path,
    shard_rows: list[dict],
    population: list[dict],
    chosen: list[dict],
    max_repeats: int,
    corpus: Path,
    realisation: str,
    curriculum: bool,
) -> dict[str, Any]:
    for shard in shard_rows:
        mine = [s for s in chosen if s["shard_id"] == shard["shard_id"]]
        shard |= _tally([s for s in population if s["shard_id"] == shard["shard_id"]], "population")
        shard |= _tally(mine, "selected") | {"selected_mass": sum(s["weight"] * s["n_tokens"] for s in mine)}
        if mine:
            table = pa.Table.from_pylist(mine, schema=SAMPLES)
            io.write_parquet(str(replay / samples_name(shard["shard_id"])), table)
    io.write_parquet(str(replay / "shards.parquet"), pa.Table.from_pylist(shard_rows, schema=REPLAY_SHARDS))
    groups, phases, requested = [], [], 0
    numbers = sorted({s["phase"] for s in chosen})
    for phase in numbers:
        in_phase = [s for s in chosen if s["phase"] == phase]
        whole = _tally(in_phase, "selected")
        replay_tokens = {
            "requested": _requested(in_phase, realisation), "realised": whole["replay_tokens"], "shortfall": 0,
        }  # fmt: skip
        requested += replay_tokens["requested"]
        kind = "norm descending in 4 buckets" if curriculum and phase % 2 == 0 else "corpus"
        phases.append(
            {"phase": phase, "mix_fraction": None, "samples": len(in_phase), "tokens": whole["selected_tokens"]}
            | {"order": kind, **({"replay_tokens": replay_tokens} if len(numbers) > 1 else {})}
        )
        for group in ("even", "odd"):
            tally = _tally([s for s in population if s["group"] == group], "population")
            picked = _tally([s for s in in_phase if s["group"] == group], "selected")
            share = tally["population_mass"] / sum(s["n_tokens"] for s in population)
            target = {"target_mass": tally["population_mass"], "budget": 1}
            target["replay_requested"] = replay_tokens["requested"] * share
            groups.append({"group": group, "phase": phase, **tally, **picked, **target})
    picked = _tally(chosen, "selected")
    header = {
        "required_features": list(REQUIRED_FEATURES[realisation]),
        "weighting": {
            "realisation": realisation, "max_repeats": max_repeats if realisation == "repeat" else 1,
            "replay_tokens": {"requested": requested, "realised": picked["replay_tokens"], "shortfall": 0},
        },
        "order": {"kind": "curriculum" if curriculum else "corpus"},
        "selection": {"method": "uniform", "options": {"seed": SEED}, "scope": "shard"},
        "groups": groups,
        "totals": {
            "shards": len(shard_rows), **_tally(population, "population"), **picked,
            "plays": sum(s["repeat"] for s in chosen),
        },
        "phases": phases,
        "corpus": {"root": str(corpus), "text_field": "text", "id_field": "id", "tokenizer": "0" * 64,
                   "max_tokens": MAX_TOKENS},
        "provenance": {"runs": [{"fingerprint": "0" * 64}], "model": {}, "tool": {"name": "cptsel", "version": "0"},
                       "packages": {}},
    }  # fmt: skip
    return finish_manifest(str(replay), header, "seed: 0\n", {"seconds": 0.0})


def reseal(replay: Path, change_header: Any = None, page: bool = True) -> None:
    """Make sums, manifest.json, its page and manifest_id right again after a change, as a careful forger would."""
    header = json.loads((replay / "manifest.json").read_text())
    for name in header["files"]:
        digest, size = outputs.hash_file(str(replay / name))
        header["files"][name] |= {"sha256": digest, "bytes": size}
        if (replay / name).read_bytes().endswith(b"PAR1"):
            header["files"][name]["rows"] = pq.read_metadata(replay / name).num_rows
    if change_header is not None:
        change_header(header)
    header["manifest_id"] = manifest_id(header)
    io.write_json(str(replay / "manifest.json"), header)
    if page:
        (replay / "CONSUMING.md").write_text(consuming_page(header))
    sums = {name: entry["sha256"] for name, entry in header["files"].items()}
    for name in ("manifest.json", "CONSUMING.md"):
        sums[name] = outputs.hash_file(str(replay / name))[0]
    (replay / "SHA256SUMS").write_text(outputs.sums_text(sums))
    load_manifest(str(replay))


def change_samples(replay: Path, shard_id: int, change: Any) -> None:
    """Rewrite a samples file after ``change(rows: list[dict])`` has had its way with the rows."""
    path = replay / samples_name(shard_id)
    rows = pq.read_table(path).to_pylist()
    change(rows)
    io.write_parquet(str(path), pa.Table.from_pylist(rows, schema=SAMPLES))


def with_visits(replay: Path, change: Any = lambda visits: None, kind: pa.Field = VISITS) -> None:
    """Make the visits of all shards anew from the samples, after ``change`` has had its way with them, and all sums."""
    manifest = load_manifest(str(replay))
    files, table = manifest.sample_files(), manifest.shards()
    visits = [
        tally(manifest.table(files[shard]), manifest.realisation) if shard in files else []
        for shard in table["shard_id"].to_pylist()
    ]
    change(visits)
    table = table.select([name for name in table.column_names if name != kind.name])
    io.write_parquet(str(replay / "shards.parquet"), table.append_column(kind, pa.array(visits, kind.type)))
    reseal(replay)
