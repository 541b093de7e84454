"""Progress of a pipeline, seen from outside: files as they appear in the output directory, on any runner."""

import threading
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Shows how far a pass is."""

    def __call__(self, done: int, total: int | None, what: str, detail: str = "", /) -> None:
        """``done`` of ``total``, None where that is not known, of what ``what`` names; ``detail`` says more of it."""


def _nothing() -> str:
    return ""


class Watch:
    """Calls ``progress(done, total, what, detail)`` every few seconds, from a thread, while a ``with`` block runs."""

    def __init__(
        self,
        progress: Progress | None,
        count: Callable[[], int],
        total: int | None,
        what: str,
        detail: Callable[[], str] = _nothing,
    ):
        self.progress = progress
        self.count = count
        self.total = total
        self.what = what
        self.detail = detail
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
            self.progress(self.count(), self.total, self.what, self.detail())
