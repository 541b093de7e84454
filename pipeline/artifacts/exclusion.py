"""Exclusion lists: what must not be embedded, selected or exported (take-downs, decontamination)."""

import re

from cptsel.pipeline import io
from cptsel.pipeline.errors import UsageError

_HEX_HASH = re.compile(r"[0-9a-fA-F]{32}")


def read_exclusions(path: str) -> frozenset[str]:
    """Read a list of doc_id, doc_key, sample_id or hexadecimal content hash, one a line.

    White space round a line is dropped; blank lines and lines that begin with ``#`` are skipped. Keys and hashes (32
    hexadecimal digits) may be in capitals too; they are returned in both forms, since a doc_id may look like one.

    Raises:
        UsageError: the file can't be read or is not UTF-8.
    """
    try:
        text = io.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"--exclude {path}: not UTF-8 at byte {error.start}; save the list as UTF-8") from error
    except OSError as error:
        raise UsageError(f"--exclude {path}: can't be read ({error.strerror or error}); check the path") from error
    entries = {line.strip() for line in text.split("\n")}
    entries = {entry for entry in entries if entry and not entry.startswith("#")}
    return frozenset(entries | {entry.lower() for entry in entries if _HEX_HASH.fullmatch(entry)})
