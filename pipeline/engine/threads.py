"""One thread for BLAS on the driver: its sums of many numbers hang on how many threads they are split over."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """A block, or a decorated function, in which BLAS has one thread in this process, and then what it had before."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
