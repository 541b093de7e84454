"""Work on as many threads as FAISS has, with the same bytes whatever their number.

BLAS splits one product over its threads, and rounds otherwise for another number of them. So it has one thread here,
and what runs side by side are pieces of work that don't depend on how many threads share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")
Result = TypeVar("Result")

#: What FAISS had before BLAS was limited: where both use OpenMP it is one number for both.
_threads: ContextVar[int | None] = ContextVar("threads", default=None)


def same_on_any_threads(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function during which BLAS and FAISS have one thread here, but for what it hands to ``side_by_side``."""

    @wraps(function)
    def alone(*args: Arguments.args, **options: Arguments.kwargs) -> Result:
        import faiss

        before = faiss.omp_get_max_threads()
        token = _threads.set(_available())
        try:
            with _one_blas_thread():
                faiss.omp_set_num_threads(1)  # by itself: after torch it may have torch's BLAS, which no one sees
                return function(*args, **options)
        finally:
            _threads.reset(token)
            faiss.omp_set_num_threads(before)

    return alone


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results of ``function`` in the order of ``items``, on as many threads as FAISS has; on each BLAS has one.

    Nothing is done before the first result is asked for. Inside ``function`` this does one item after another. BLAS may
    have one number of threads for the whole process: who calls this from several threads at once sets it to one before.

    Raises:
        Whatever ``function`` raises, for the first of the items; those that were not begun are left out.
    """
    import faiss  # here, as commands that look something up take longer to load it than to answer

    threads = min(_available(), len(items))
    with _one_blas_thread():
        if threads <= 1:
            yield from map(function, items)
            return
        with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(function, items)


def _available() -> int:
    import faiss

    return _threads.get() or faiss.omp_get_max_threads()


def _one_blas_thread() -> AbstractContextManager[Any]:
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> Any:
    """The BLAS of NumPy and that of FAISS, looked for once; what others load later is not used by kernels."""
    import faiss  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
