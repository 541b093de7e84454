"""What lies behind ``gs://``, ``s3://`` and ``hdfs://``: Beam's filesystems, their options, and what they lack.

Object stores have no rename: Beam copies and deletes. A copy is there when all of it is, so a name never shows half a
file. HDFS renames at once, but not onto a file that is there.
"""

import functools
import io
import os
import re
import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from cptsel.pipeline.errors import CptselError, UsageError, first_line

#: Environment variable with options of Beam's filesystems, for every command, those without a pipeline among them.
OPTIONS = "CPTSEL_FILESYSTEM"

#: What Beam reads paths of a scheme by, and the extra of cptsel that installs it.
_PACKAGES = {"gs": ("google.cloud.storage", "gcs"), "hdfs": ("hdfs", "hdfs"), "s3": ("boto3", "s3")}

_READ = 1 << 16  # bytes; Beam's filesystems buffer what they read
_WHOLE = 1 << 24  # of a file that is read whole
_WRITE = 1 << 20  # and a request to HDFS is made of pieces of this size
_GLOB = re.compile(r"[*?\[]")


def options() -> list[str]:
    """Options of filesystems, for a pipeline, from the environment."""
    return shlex.split(os.environ.get(OPTIONS, ""))


def match(pattern: str) -> list[FileMetadata]:
    """Files that match a glob. Empty objects whose names end with a slash, made for folders by some tools, are none."""
    with _told("listed", pattern):
        store = _store(pattern)
        if store.has_dirs():  # Beam's match does not look into folders below
            return _match_below(store, pattern)
        (result,) = store.match([pattern])
        return [entry for entry in result.metadata_list if not entry.path.endswith("/")]


def exists(path: str) -> bool:
    """Whether a file is there."""
    with _told("found", path):
        return bool(_store(path).exists(path))


def open_read(path: str) -> BinaryIO:
    """Open for reading as raw bytes.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with _told("read", path):
        store = _store(path)
        try:
            handle = store.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        except Exception as error:  # each store has its own for a file that is missing
            if store.exists(path):
                raise
            raise FileNotFoundError(f"{path} is missing") from error
    return io.BufferedReader(_Reader(path, handle), _READ)


@contextmanager
def writer(path: str, temporary: str) -> Iterator[BinaryIO]:
    """A file object whose bytes appear at ``path`` when the block ends without an error; what was there is replaced.

    Args:
        path: of the file.
        temporary: another name beside it, which is used in between.
    """
    with _told("written", path):
        store = _store(path)
    raw = _Writer(path, store, temporary)
    handle = io.BufferedWriter(raw, _WRITE)
    try:
        yield handle
        handle.close()
        with _told("written", path):
            if not raw.began:
                _write_empty(store, path, temporary)
            else:
                _rename(store, temporary, path)
    except BaseException:
        with suppress(Exception):  # it would hide the error itself; a temporary name is no one's file
            handle.close()
        with suppress(Exception):
            if raw.began and store.exists(temporary):
                store.delete([temporary])
        raise


def delete(paths: Sequence[str]) -> None:
    """Delete files; one that is not there is no error."""
    if not paths:
        return
    with _told("deleted", paths[0]):
        store = _store(paths[0])
        if store.scheme() == "gs":  # Beam's delete lists the bucket for each of them
            for start in range(0, len(paths), store.CHUNK_SIZE):
                for path, error in store._gcsIO().delete_batch(paths[start : start + store.CHUNK_SIZE]):
                    if error:
                        raise OSError(f"{path}: {error}")
        else:
            store.delete(list(paths))


def delete_tree(directory: str) -> None:
    """Delete all files below a directory; one that is not there is no error."""
    with _told("deleted", directory):
        store = _store(directory)
        if store.has_dirs():
            store.delete([directory.rstrip("/")])
        elif match(directory.rstrip("/") + "/**"):
            store.delete([directory.rstrip("/") + "/"])


def _store(path: str) -> FileSystem:
    """The filesystem of a path, with the options of the pipeline in work or, without one, of the environment."""
    if FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions(options()))
    if path.startswith("s3://"):
        _keep_s3_clients()
    return FileSystems.get_filesystem(path)


@contextmanager
def _told(done: str, path: str) -> Iterator[None]:
    """Errors of a store's client as ours, or as an OSError with one line: path, and what the client said.

    Raises:
        UsageError: the filesystem is not there, is not installed, or lacks an option.
    """
    try:
        yield
    except (CptselError, FileNotFoundError):
        raise
    except Exception as error:
        _refuse_unknown(done, path, error)
        cause = _cause(error)
        sentence = f"{path}: can't be {done} ({first_line(cause)})"
        if isinstance(cause, ValueError):  # Beam has not the options that the filesystem needs
            raise UsageError(f"{sentence}; check the path, or give options of its filesystem in {OPTIONS}") from error
        raise OSError(sentence) from error


def _refuse_unknown(done: str, path: str, error: Exception) -> None:
    """Refuse a path whose filesystem Beam does not have, or can't use without a package.

    Beam's own sentences name extras of Beam, or none.

    Raises:
        UsageError: it is one.
    """
    scheme = path.partition("://")[0]
    if scheme in _PACKAGES:
        package, extra = _PACKAGES[scheme]
        try:
            import_module(package)
        except ImportError:
            what = f"{package} is not installed; pip install 'cptsel[{extra}]'"
            raise UsageError(f"{path}: can't be {done}: {what}") from error
    elif scheme not in {known.scheme() for known in FileSystem.get_all_subclasses()}:
        what = f"Beam has no filesystem for {scheme}://; give a local path, or gs://, s3:// or hdfs://"
        raise UsageError(f"{path}: can't be {done}: {what}") from error


def _cause(error: BaseException) -> BaseException:
    """What a BeamIOError was made of."""
    details = getattr(error, "exception_details", None)
    while isinstance(error, BeamIOError) and isinstance(details, dict) and details:
        inner = next(iter(details.values()))
        error = inner if isinstance(inner, BaseException) else OSError(str(inner))
        details = getattr(error, "exception_details", None)
    return error


class _Reader(io.RawIOBase):
    """A file of a store, whose errors are ours."""

    def __init__(self, path: str, handle: BinaryIO):
        self._path = path
        self._handle = handle

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _told("read", self._path):
            data = self._handle.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:  # Beam's own asks a store for 8 KiB at a time
        with _told("read", self._path):
            return b"".join(iter(lambda: self._handle.read(_WHOLE), b""))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with _told("read", self._path):
            return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._handle.close()


class _Writer(io.RawIOBase):
    """A file of a store that is begun with its first byte."""

    def __init__(self, path: str, store: FileSystem, temporary: str):
        self._path = path
        self._store = store
        self._temporary = temporary
        self._handle: BinaryIO | None = None
        self._position = 0

    @property
    def began(self) -> bool:
        """Whether it has bytes."""
        return self._position > 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any, /) -> int:
        with _told("written", self._path):
            if self._handle is None:
                self._handle = self._store.create(self._temporary, compression_type=CompressionTypes.UNCOMPRESSED)
            self._handle.write(data)
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._handle is not None:
                with _told("written", self._path):
                    self._handle.close()


def _write_empty(store: FileSystem, path: str, temporary: str) -> None:
    """Beam uploads to S3 in parts, of which there must be one."""
    if store.scheme() == "s3":
        bucket, _, key = path.removeprefix("s3://").partition("/")
        _s3_client(store).put_object(Bucket=bucket, Key=key, Body=b"")
        return
    store.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED).close()
    _rename(store, temporary, path)


def _rename(store: FileSystem, source: str, target: str) -> None:
    if store.has_dirs() and store.exists(target):
        store.delete([target])
    store.rename([source], [target])


def _match_below(store: Any, pattern: str) -> list[FileMetadata]:
    """Files that match a glob on a filesystem with folders, which are listed one by one."""
    found = _GLOB.search(pattern)
    if found is None:
        status = store._hdfs_client.status(store._parse_url(pattern)[1], strict=False)
        return [_entry(pattern, status)] if status and status["type"] == "FILE" else []
    levels = None if "**" in pattern else pattern.count("/")
    matches = re.compile(store.translate_pattern(pattern)).match
    folders, entries = [pattern[: found.start()].rpartition("/")[0]], []
    while folders:
        folder = folders.pop()
        path = store._parse_url(folder)[1]
        if store._hdfs_client.status(path, strict=False) is None:
            continue
        for name, status in store._hdfs_client.list(path, status=True):
            entry = f"{folder}/{name}"
            if status["type"] != "DIRECTORY":
                entries += [_entry(entry, status)] if matches(entry) else []
            elif levels is None or entry.count("/") < levels:
                folders.append(entry)
    return entries


def _entry(path: str, status: dict[str, Any]) -> FileMetadata:
    return FileMetadata(path, status["length"], status["modificationTime"] / 1000)


def _s3_client(store: Any) -> Any:
    """The client of boto3 behind a filesystem."""
    from apache_beam.io.aws import s3io

    return s3io.S3IO(options=store._options).client.client


@functools.cache
def _keep_s3_clients() -> None:
    """Let Beam's S3 filesystem use one client of boto3: it makes one a call, which takes longer than most calls."""
    try:
        from apache_beam.io.aws.clients.s3 import boto3_client
    except ImportError:
        return
    if boto3_client.boto3 is not None:
        boto3_client.boto3 = _Boto3(boto3_client.boto3)


class _Boto3:
    """The module boto3, but for its sessions, which are this object itself, and their clients."""

    def __init__(self, module: Any):
        self._module = module
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._clients.clear)  # a connection is one process's
        self.session = self

    def Session(self) -> "_Boto3":
        return self

    def client(self, **settings: Any) -> Any:
        """A client with these settings; clients may be used by several threads."""
        with self._lock:
            name = repr(sorted(settings.items()))
            if name not in self._clients:
                self._clients[name] = self._module.session.Session().client(**settings)
            return self._clients[name]
