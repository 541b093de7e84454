"""Exclusion lists: what must not be embedded, selected or exported (take-downs, decontamination)."""

import re

from cptsel.pipeline import io
from cptsel.pipeline.errors import UsageError

_HEX_HASH = re.compile(r"[0-9a-fA-F]{32}")
_MOST_BYTES = 1 << 16  # of a line: a file without line ends, or a device without an end, is no list


def read_exclusions(path: str) -> frozenset[str]:
    """Read a list of doc_id, doc_key, sample_id or hexadecimal content hash, one a line.

    White space round a line is dropped; blank lines and lines that begin with ``#`` are skipped. Keys and hashes (32
    hexadecimal digits) may be in capitals too; they are returned in both forms, since a doc_id may look like one.

    Raises:
        UsageError: the file can't be read or is not UTF-8.
    """
    entries = set()
    try:
        with io.open_read(path) as handle:
            for number, line in enumerate(iter(lambda: handle.readline(_MOST_BYTES + 1), b""), 1):
                if len(line) > _MOST_BYTES:
                    raise UsageError(
                        f"--exclude {path}: line {number} has more than {_MOST_BYTES} bytes; one id a line"
                    )
                entries.add(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
    except UnicodeDecodeError as error:
        raise UsageError(f"--exclude {path}: line {number} is not UTF-8; save the list as UTF-8") from error
    except OSError as error:
        raise UsageError(f"--exclude {path}: can't be read ({error.strerror or error}); check the path") from error
    entries = {entry for entry in entries if entry and not entry.startswith("#")}
    return frozenset(entries | {entry.lower() for entry in entries if _HEX_HASH.fullmatch(entry)})
