"""The corpus formats, and how a file's format is told."""

import os

from cptsel.pipeline.corpus.formats.arrow import Arrow
from cptsel.pipeline.corpus.formats.base import CorpusFormat
from cptsel.pipeline.corpus.formats.jsonl import Jsonl
from cptsel.pipeline.corpus.formats.mds import Mds
from cptsel.pipeline.corpus.formats.megatron import Megatron
from cptsel.pipeline.corpus.formats.nanotron import Nanotron
from cptsel.pipeline.corpus.formats.npy import Npy, NpyUint16, NpyUint32
from cptsel.pipeline.corpus.formats.parquet import Parquet
from cptsel.pipeline.corpus.formats.webdataset import WebDataset
from cptsel.pipeline.errors import UsageError

_ALL: tuple[CorpusFormat, ...] = (
    *(Jsonl(), Parquet(), Arrow(), Mds(), WebDataset()),
    *(Megatron(), Nanotron(), Npy(), NpyUint16(), NpyUint32()),
)
FORMATS = {format.name: format for format in _ALL}

#: Suffixes of compressions, around that of a format.
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


def file_format(path: str, named: str | None = None) -> tuple[str, str]:
    """Format and compression (``none``, ``gzip``, ``zstd``) of a file, by its suffixes.

    Args:
        path: of the file.
        named: the format, if it is known; the compression still goes by the suffix.

    Raises:
        UsageError: a suffix that is not known, or a compression that the format can't have.
    """
    stem, suffix = os.path.splitext(path.lower())
    compression = COMPRESSIONS.get(suffix, "none")
    if compression != "none":
        suffix = os.path.splitext(stem)[1]
    format = FORMATS[named] if named else next((f for f in FORMATS.values() if suffix in f.suffixes), None)
    if format is None:
        raise UsageError(f"{path}: unknown suffix; known are {known_suffixes()}; say what it is by --format")
    if compression != "none" and compression not in format.compressions:
        raise UsageError(f"{path}: {format.name} is never read from {compression}; uncompress it")
    return format.name, compression


def stem_of(name: str) -> str:
    """The name of a file without the suffixes of its compression and format."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in COMPRESSIONS:
        name = stem
        stem, suffix = os.path.splitext(name)
    return stem if any(suffix.lower() in format.suffixes for format in FORMATS.values()) else name


def known_suffixes() -> str:
    """The suffixes of all formats, in words."""
    words = []
    for format in FORMATS.values():
        if not format.suffixes:
            continue
        names = _listed(format.suffixes)
        around = [suffix for suffix, name in COMPRESSIONS.items() if name in format.compressions]
        words.append(f"{names} (alone or with {_listed(around)})" if around else names)
    return ", ".join(words[:-1]) + " and " + words[-1]


def _listed(names: "list[str] | tuple[str, ...]") -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
