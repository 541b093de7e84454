"""Exports as a careful forger leaves them: changed, with everything that follows from the files made right again."""

import json
from pathlib import Path

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.exports import page
from cptsel.pipeline.exports.datasets import EXPORT, datasets
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.model.vocabulary import Vocabulary


def header_of(out: Path) -> dict:
    """``export.json``."""
    return json.loads((out / EXPORT).read_text())


def plays_files(out: Path) -> list[str]:
    """Names of the files of plays, in order."""
    header = header_of(out)
    return sorted(name for name in header["files"] if name.endswith(EXPORTS[header["to"]].suffix))


def rewrite(out: Path, name: str, change) -> None:
    """Write a file of plays again, after ``change(records)`` has had its way with the list of them."""
    header = header_of(out)
    format, path = EXPORTS[header["to"]], str(out / name)
    records = list(format.read(path))
    with_ids = "input_ids" in records[0]
    eos = _eos(format, out / name) if not format.writes_text else 0
    change(records)
    filled = [{**dict.fromkeys(("id", "group", "text"), ""), "repeat": 1, **record} for record in records]
    size = 4096 if not format.writes_text else 1 << 20
    format.write(path, filled if format.writes_text else records, Vocabulary(size, eos) if with_ids else None)


def _eos(format, path: Path) -> int:
    """The id that ends the plays of a file of ids alone: its last, of two bytes."""
    return int.from_bytes(path.read_bytes()[-2:], "little")


def reseal_export(out: Path, change=None) -> None:
    """Make the header, indexes, page and sums right again after files changed; ``change(header)`` comes first.

    Numbers of plays are counted where files can be read; those of tokens stay, as nobody sees them in a text.
    """
    header = header_of(out)
    format = EXPORTS[header["to"]]
    there = {name for name in outputs.list_tree(str(out)) if name.startswith("data/")}
    for name in set(header["files"]) - there:
        del header["files"][name]
    for name in there:
        digest, size = outputs.hash_file(str(out / name))
        entry = header["files"].setdefault(name, {"lines": 0, "tokens": 0})
        entry |= {"sha256": digest, "bytes": size}
        if name.endswith(format.suffix):
            try:
                records = list(format.read(str(out / name)))
            except Exception:  # a forger who can't read it leaves what was said
                continue
            if not format.joins:  # as many plays as ever may be of a document
                entry["lines"] = len(records)
            if records and "input_ids" in records[0]:
                entry["tokens"] = sum(len(record["input_ids"]) for record in records)
    if change is not None:
        change(header)
    for folder, files in datasets(format, header["files"]).items():
        for name, value in format.index(str(out / folder), files).items():
            path = out / folder / name
            io.write_json(str(path), value)
            digest, size = outputs.hash_file(str(path))
            header["files"][f"{folder}/{name}"] = {"sha256": digest, "bytes": size, "lines": 0, "tokens": 0}
    entries = header["files"].values()
    header["totals"] = {"files": len(entries)} | {
        key: sum(entry[key] for entry in entries) for key in ("bytes", "lines", "tokens")
    }
    io.write_json(str(out / EXPORT), header)
    pages = page.pages(format, header)
    for name, data in pages.items():
        (out / name).write_bytes(data)
    sums = {name: entry["sha256"] for name, entry in header["files"].items()}
    sums |= {name: outputs.hash_file(str(out / name))[0] for name in (EXPORT, *pages)}
    (out / outputs.SUMS).write_text(outputs.sums_text(sums))
