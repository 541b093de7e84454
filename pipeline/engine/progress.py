"""Progress of a pipeline, seen from outside: files as they appear in the output directory, on any runner."""

import threading
from collections.abc import Callable

Progress = Callable[[int, int | None, str], None]


class Watch:
    """Calls ``progress(done, total, what)`` every few seconds from a thread of its own while a ``with`` block runs."""

    def __init__(self, progress: Progress | None, count: Callable[[], int], total: int | None, what: str):
        self.progress = progress
        self.count = count
        self.total = total
        self.what = what
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> "Watch":
        if self.progress is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.progress is not None:
            self._thread.join()

    def _loop(self) -> None:
        assert self.progress is not None
        while not self._stop.wait(2.0):
            self.progress(self.count(), self.total, self.what)
