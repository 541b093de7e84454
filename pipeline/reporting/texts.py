"""Texts of samples, read from the corpus where it is at hand, and shortened for a page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline.artifacts.manifest import Manifest, source_uri
from cptsel.pipeline.corpus.contents import content_bytes, shown, window_of
from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import CptselError
from cptsel.pipeline.hashing import content_hash
from cptsel.pipeline.reporting.html import plain
from cptsel.pipeline.summary import counted

ROW_BYTES = 256 << 20  # stored bytes of shards that are read front to back; more would read the corpus for a page

_SPACE = re.compile(r"\s+")


@dataclass
class Texts:
    """What was read.

    Attributes:
        found: texts by sample_id, whole; of a corpus of token ids the ids as numbers.
        missing: shards that are not where they were, or of which a row can't be read.
        changed: samples whose text is not the one that was embedded.
        far: samples left out because whole shards would have to be read for them.
    """

    found: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    changed: int = 0
    far: int = 0

    def warnings(self) -> list[str]:
        """What is left out, a sentence each."""
        said = []
        if self.missing:
            said.append(
                f"texts of {counted(self.missing, 'shard')} are left out: the files are not where they were, or "
                "can't be read; give the corpus's directory with --root"
            )
        if self.changed:
            said.append(f"{counted(self.changed, 'text')} left out: the corpus has changed since it was embedded")
        if self.far:
            said.append(
                f"{counted(self.far, 'text')} left out: for them more than {ROW_BYTES >> 20:,} MiB of the corpus would "
                "have to be read front to back"
            )
        return said


def read_sample_texts(manifest: Manifest, rows: pa.Table, root: str | None, progress: Progress | None = None) -> Texts:
    """Texts of samples; what can't be read is left out and counted.

    Args:
        manifest: says where shards lie.
        rows: locators of the samples, the dearest first; a sample may come several times.
        root: where the corpus lies now, None where it was embedded.
        progress: told how far it is.
    """
    shards = {shard["shard_id"]: shard for shard in manifest.shards().to_pylist()}
    ids = rows["shard_id"].to_numpy()
    texts, allowance = Texts(), ROW_BYTES
    order = list(dict.fromkeys(ids.tolist()))  # shards of the dearest rows first
    for done, shard_id in enumerate(order, 1):
        mine = rows.take(pa.array(np.flatnonzero(ids == shard_id))).to_pylist()
        shard = shards[shard_id]
        if not _is_direct(shard, mine):
            if shard["bytes"] > allowance:
                texts.far += len(mine)
                continue
            allowance -= shard["bytes"]
        _read(source_uri(shard, root), shard, manifest.text_field, mine, texts)
        if progress:
            progress(done, len(order), "shards with texts")
    return texts


def _is_direct(shard: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    """Whether rows can be read where they lie, without what stands before them."""
    return shard["compression"] == "none" and all(row["byte_offset"] is not None for row in rows)


def _read(uri: str, shard: dict[str, Any], text_field: str, rows: list[dict[str, Any]], texts: Texts) -> None:
    """Add the texts of one shard, each held against its hash."""
    by_document: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_document.setdefault(row["row_index"], []).append(row)
    wanted = [
        (key, by_document[key][0]["byte_offset"], by_document[key][0]["byte_length"]) for key in sorted(by_document)
    ]
    try:
        for row_index, content in read_texts(uri, shard["format"], shard["compression"], text_field, wanted):
            for row in by_document[row_index]:
                window = window_of(content, row)
                if content_hash(content_bytes(window)) == row["content_hash"]:
                    texts.found[row["sample_id"]] = shown(window)
                else:
                    texts.changed += 1
    except (CptselError, OSError):
        texts.missing += 1


def shorten(text: str, most: int) -> str:
    """A text on one line, of at most about ``most`` bytes in UTF-8, cut between characters."""
    line = _SPACE.sub(" ", plain(text[: 4 * most])).strip()
    data = line.encode()
    if len(data) <= most and len(text) <= 4 * most:
        return line
    return data[:most].decode("utf-8", "ignore").rstrip() + "…"
