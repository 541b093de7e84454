"""Files of tensors in the safetensors format, written and read a tensor at a time.

The library holds a whole file in memory, and orders its metadata by chance. Here a tensor is held at a time, and equal
tensors give equal bytes. The format: https://huggingface.co/docs/safetensors.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cptsel.pipeline import io
from cptsel.pipeline.errors import UsageError

_ALIGNED = 8  # bytes


def write_tensors(
    path: str, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[np.ndarray], metadata: dict[str, str]
) -> None:
    """Write float32 tensors atomically.

    Args:
        path: of the file.
        shapes: by name, in the order in which the tensors come.
        tensors: float32, of these shapes.
        metadata: of the file.

    Raises:
        ValueError: a tensor is not of its shape (a fault of the caller).
    """
    entries: dict[str, Any] = {"__metadata__": {key: metadata[key] for key in sorted(metadata)}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape, dtype=np.int64))
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    head = json.dumps(entries, separators=(",", ":")).encode()
    head += b" " * (-len(head) % _ALIGNED)
    with io.atomic_writer(path) as handle:
        handle.write(len(head).to_bytes(8, "little") + head)
        for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
            if tensor.shape != tuple(shape) or tensor.dtype != np.float32:
                raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not float32 {tuple(shape)}")
            handle.write(_bytes(tensor))


def tensors_sha256(tensors: Iterable[np.ndarray]) -> str:
    """SHA-256, in hex, of the bytes of float32 tensors, one after the other: what ``TensorFile.sha256`` finds."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: np.ndarray) -> bytes:
    return np.ascontiguousarray(tensor, dtype="<f4").tobytes()


class TensorFile:
    """A file that ``write_tensors`` wrote; tensors are read as they are asked for.

    Attributes:
        metadata: of the file.
        shapes: by name, in the order of the file.
    """

    def __init__(self, path: str):
        """Raises UsageError where it is no such file, or is cut off."""
        self.path = path
        try:
            size = io.size(path)
            with io.open_read(path) as handle:
                length = int.from_bytes(handle.read(8), "little")
                entries: Any = json.loads(handle.read(length)) if length < size else None
            self.metadata: dict[str, str] = entries.pop("__metadata__")
            self.shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
            self._places = {name: tuple(entry["data_offsets"]) for name, entry in entries.items()}
            self._start = 8 + length
            whole = size == self._start + max((end for _, end in self._places.values()), default=0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: can't be read as safetensors; make the directory again") from error
        if not whole:
            raise UsageError(f"{path}: is cut off; make the directory again")

    def read(self, name: str) -> np.ndarray:
        """A tensor, float32."""
        begin, end = self._places[name]
        with io.open_read(self.path) as handle:
            handle.seek(self._start + begin)
            return np.frombuffer(handle.read(end - begin), dtype="<f4").reshape(self.shapes[name])

    def sha256(self) -> str:
        """SHA-256 of the tensors' bytes, in hex."""
        digest = hashlib.sha256()
        with io.open_read(self.path) as handle:
            handle.seek(self._start)
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()
