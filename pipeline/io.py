"""Files on local paths and, through Beam's filesystems, on gs://, s3:// and hdfs://; every write is atomic.

A file is written under a temporary name that no other attempt uses, and is then renamed. A reader never sees half a
file, and two attempts of one task may run at once, as they write the same bytes.
"""

import errno
import io
import json
import os
import posixpath
import re
import shutil
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from cptsel.pipeline.errors import NoRoomError, UsageError

#: Name of a file that is being written, and of what a killed write leaves behind; its group is the final name.
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp")

_AHEAD = 8  # files that are read before they are asked for

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_UNLINKABLE = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")


def is_remote(path: str) -> bool:
    """True for ``scheme://`` paths."""
    return bool(_SCHEME.match(path))


def join(base: str, *parts: str) -> str:
    """Join path parts on any filesystem (always with ``/``)."""
    return posixpath.join(base, *parts)


def absolute(path: str) -> str:
    """A local path made absolute, so that workers in other directories find it; a remote one as it is."""
    return path if is_remote(path) else os.path.abspath(path)


def _stores() -> Any:
    """What reads remote paths; loaded when one is met: loading Beam takes longer than many a command."""
    from cptsel.pipeline import stores

    return stores


def match(pattern: str) -> list[Any]:
    """Files that match a glob, sorted by path; metadata with ``path`` and ``size_in_bytes``."""
    if is_remote(pattern):
        return sorted(_stores().match(pattern), key=lambda entry: entry.path)
    from apache_beam.io.filesystems import FileSystems

    (result,) = FileSystems.match([pattern])
    return sorted(result.metadata_list, key=lambda entry: entry.path)


def matches(pattern: str, path: str) -> bool:
    """Whether ``match`` would find a file at ``path`` by ``pattern``."""
    from apache_beam.io.filesystem import FileSystem

    return re.match(FileSystem.translate_pattern(pattern), path) is not None


def list_names(directory: str, suffix: str = "") -> list[str]:
    """Names of the files straight in a directory (none where it does not exist), sorted; temporary ones left out."""
    if not is_remote(directory):
        if not os.path.isdir(directory):
            return []
        names = os.listdir(directory)
    else:
        names = [posixpath.basename(entry.path) for entry in match(join(directory, "*"))]
    return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))


def exists(path: str) -> bool:
    """Whether a file or local directory is there."""
    return _stores().exists(path) if is_remote(path) else os.path.exists(path)


def size(path: str) -> int:
    """Bytes of a file.

    Raises:
        FileNotFoundError: there is none.
    """
    if not is_remote(path):
        return os.path.getsize(path)
    for entry in match(path):
        if entry.path == path:  # the name itself may hold characters of a glob
            return int(entry.size_in_bytes)
    raise FileNotFoundError(f"{path} is missing")


def open_read(path: str) -> BinaryIO:
    """Open for reading as raw bytes, never decompressed: Beam's own reader takes half a gzip for a whole one."""
    return _stores().open_read(path) if is_remote(path) else open(path, "rb")


def read_bytes(path: str) -> bytes:
    """A whole small file."""
    with open_read(path) as handle:
        return handle.read()


def read_json(path: str) -> Any:
    """A JSON file. Raises UsageError where it is not JSON."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(f"{path}: not valid JSON ({detail}); restore the file or make the directory again") from error


@contextmanager
def atomic_writer(path: str, durable: bool = True) -> Iterator[BinaryIO]:
    """A binary file object whose bytes appear at ``path`` all at once when the block ends, or not at all.

    ``durable``: on a local filesystem, wait until they are on the disk, so that a crash of the machine can't take them.
    """
    directory, name = posixpath.split(path)
    temporary = join(directory, f".{name}.{uuid.uuid4().hex[:12]}.tmp")
    if is_remote(path):
        with _stores().writer(path, temporary) as handle:
            yield handle
        return
    os.makedirs(directory or ".", exist_ok=True)
    try:
        with open(temporary, "wb") as handle:
            yield handle
            handle.flush()
            if durable:
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if os.path.exists(temporary):
            os.remove(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            error.filename = path  # which is what was asked for
        if isinstance(error, OSError) and is_full(error):
            raise no_room(path, error) from error
        raise


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room."""
    return error.errno in _FULL


def no_room(path: str, error: OSError) -> NoRoomError:
    """The error of a full disk: of one kind and with its path, in every step."""
    reason = (error.strerror or str(error)).lower()
    return NoRoomError(f"{path}: can't be written ({reason}); make room and run the command again")


def write_bytes(path: str, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_writer(path) as handle:
        handle.write(data)


def write_scratch(path: str, data: bytes | pa.Table) -> None:
    """Write bytes, or a table as Parquet, that only this call of the command reads: atomically, but not durably."""
    with atomic_writer(path, durable=False) as handle:
        handle.write(parquet_bytes(data) if isinstance(data, pa.Table) else data)


def link_files(source: str, target: str, names: Sequence[str]) -> list[str]:
    """Give files below one directory second names below another; returns those for which that can't be.

    Local filesystems do it without a copy: a file is there once, and lasts until its last name is deleted. It can't be
    between two filesystems, on object stores, where a filesystem has no such links, or allows a file no more of them.

    Raises:
        FileNotFoundError: one is missing.
        FileExistsError: a name is taken.
        NoRoomError: there is no room for more names.
    """
    if is_remote(source) or is_remote(target):
        return list(names)
    for folder in {name.rpartition("/")[0] for name in names}:
        os.makedirs(join(target, folder), exist_ok=True)
    left = []
    with _opened(source) as here, _opened(target) as there:
        for name in names:
            try:
                os.link(name, name, src_dir_fd=here, dst_dir_fd=there)
            except OSError as error:
                if is_full(error):
                    raise no_room(join(target, name), error) from error
                if error.errno not in _UNLINKABLE:
                    raise
                left.append(name)
    return left


def is_linked(path: str) -> bool:
    """Whether a local file has another name somewhere, as ``link_files`` gives it; False where that can't be told."""
    try:
        return not is_remote(path) and os.stat(path).st_nlink > 1
    except OSError:
        return False


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    """The descriptor of a local directory."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def write_json(path: str, value: Any) -> None:
    """Write JSON atomically: sorted keys, two spaces, a newline at the end; NaN is an error."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def parquet_bytes(table: pa.Table, metadata: dict[str, str] | None = None, row_group_size: int | None = None) -> bytes:
    """Serialise a table to Parquet in memory, zstd-compressed; equal tables give equal bytes.

    The Arrow schema is stored, so dictionaries and fixed-size lists come back as they were. ``row_group_size`` is in
    rows; by default there are as many as Arrow puts together.
    """
    if metadata:
        table = table.replace_schema_metadata({key: metadata[key] for key in sorted(metadata)})
    sink = io.BytesIO()
    options = {"compression": "zstd", "version": "2.6", "write_page_checksum": True}
    pq.write_table(table, sink, row_group_size=row_group_size, **options)
    return sink.getvalue()


def write_parquet(path: str, table: pa.Table, metadata: dict[str, str] | None = None) -> None:
    """Write one Parquet file atomically (see parquet_bytes)."""
    write_bytes(path, parquet_bytes(table, metadata))


def read_parquet(path: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file that cptsel wrote. Raises UsageError naming the file where it is damaged."""
    try:
        with open_read(path) as handle:
            # No threads: one of Arrow's could hold a Python buffer when the interpreter ends, which aborts the process.
            return pq.ParquetFile(handle, page_checksum_verification=True).read(columns=columns, use_threads=False)
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing; restore it, or make the directory again") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: can't be read as Parquet ({error}); make the directory again") from error


def read_tables(paths: Sequence[str], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Parquet files as ``read_parquet`` reads them, in order; threads read a few ahead, and no more is held."""
    ahead: deque[Future[pa.Table]] = deque()
    with ThreadPoolExecutor(max_workers=_AHEAD) as pool:
        for path in paths:
            ahead.append(pool.submit(read_parquet, path, columns))
            if len(ahead) > _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def read_parquet_schema(path: str) -> pa.Schema:
    """Schema of a Parquet file. Raises UsageError naming the file where it is damaged."""
    try:
        with open_read(path) as handle:
            return pq.ParquetFile(handle).schema_arrow
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing; restore it, or make the directory again") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: can't be read as Parquet ({error}); make the directory again") from error


def read_parquet_metadata(path: str) -> dict[str, str]:
    """Key-value metadata of a Parquet file's schema. Raises UsageError where the file is damaged."""
    stored = read_parquet_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in stored.items()}


def delete_tree(directory: str) -> None:
    """Delete a directory and all below it; one that is not there is no error."""
    if is_remote(directory):
        _stores().delete_tree(directory)
    else:
        shutil.rmtree(directory, ignore_errors=not os.path.exists(directory))


def delete_files(directory: str, names: Sequence[str]) -> None:
    """Delete files below a directory, and folders in it that are empty then; one that is not there is no error."""
    if is_remote(directory):
        _stores().delete([join(directory, name) for name in names])
        return
    for name in names:
        with suppress(FileNotFoundError):
            os.remove(os.path.join(directory, name))
    for folder in reversed(_folders(directory)[1:]):
        with suppress(OSError):  # there is something in it
            os.rmdir(folder)


def _folders(directory: str) -> list[str]:
    """A local directory and all below it, each behind the one that it lies in; links are not followed."""
    found = [directory] if os.path.isdir(directory) else []
    for folder in found:
        with suppress(OSError), os.scandir(folder) as entries:  # it was deleted meanwhile, or may not be read
            found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return found


def sync_directories(directory: str, deep: bool = True) -> None:
    """Make the names of all files below a local directory, and its own, last through a loss of power.

    Without ``deep`` those straight in it alone.
    """
    if is_remote(directory):
        return
    for folder in [os.path.dirname(os.path.abspath(directory)), *(_folders(directory) if deep else [directory])]:
        with _opened(folder) as handle:
            os.fsync(handle)


def delete(path: str) -> None:
    """Delete a file; one that is not there is no error."""
    if is_remote(path):
        _stores().delete([path])
        return
    with suppress(FileNotFoundError):
        os.remove(path)
