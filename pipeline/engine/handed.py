"""Values that travel to workers in files, so that a pipeline's graph has one size, whatever they hold."""

from typing import Any, Generic, TypeVar

from apache_beam.internal import pickler

from cptsel.pipeline import io
from cptsel.pipeline.engine.site import missing_here

T = TypeVar("T")


class Handed(Generic[T]):
    """A value in a file. What is pickled of this object is the path alone; a worker reads the value at its first use.

    Attributes:
        path: of the file, which workers must see.
    """

    def __init__(self, path: str, value: T):
        """Write the value, which is picklable, to ``path``."""
        self.path = path
        self._values = [value]
        io.write_scratch(path, pickler.dumps(value))

    @property
    def value(self) -> T:
        """The value.

        Raises:
            UsageError: the file is not seen where this runs.
        """
        if not self._values:
            try:
                self._values = [pickler.loads(io.read_bytes(self.path))]
            except FileNotFoundError as error:
                raise missing_here(self.path) from error
        return self._values[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_values": []}
