"""Work side by side: the order of its results, what each thread has, and bytes that no number of threads changes."""

import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from cptsel.pipeline.kernels.coverage import shortlist
from cptsel.pipeline.kernels.coverage.craig import craig
from cptsel.pipeline.kernels.threads import _libraries, same_on_any_threads, side_by_side


@pytest.fixture(autouse=True)
def restored_threads():
    before = faiss.omp_get_max_threads()
    with threadpool_limits(before, user_api="blas"):
        yield
    faiss.omp_set_num_threads(before)


def blas_threads() -> set[int]:
    """Of what kernels use: an earlier test may have loaded a BLAS of its own."""
    return {library["num_threads"] for library in _libraries().info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_from_threads_that_have_one_of_blas(threads: int) -> None:
    faiss.omp_set_num_threads(threads)
    with threadpool_limits(2, user_api="blas"):
        faiss.omp_set_num_threads(threads)
        found = list(side_by_side(lambda item: (item, blas_threads()), range(20)))
        assert found == [(item, {1}) for item in range(20)]
        assert list(side_by_side(abs, [])) == []


def test_inside_a_function_there_are_as_many_threads_as_outside() -> None:
    together = 3

    @same_on_any_threads
    def meet() -> list[int]:
        from threading import Barrier

        barrier = Barrier(together)
        assert blas_threads() == {1}
        return list(side_by_side(lambda item: barrier.wait(20) * 0 + item, range(together)))

    faiss.omp_set_num_threads(together)
    assert meet() == [0, 1, 2]
    assert faiss.omp_get_max_threads() == together


def test_errors_reach_the_caller() -> None:
    faiss.omp_set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda item: 1 // item, [1, 0, 2]))


@pytest.mark.parametrize("pairs", [0, 1 << 31])
def test_a_choice_is_the_same_on_any_threads(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "CELL_ROWS", 400)
    monkeypatch.setattr(shortlist, "PAIRS", pairs)
    found = [choice(threads) for threads in (1, 2, 5)]
    assert found[1:] == found[:1] * 2


def choice(threads: int) -> tuple[bytes, ...]:
    """What is chosen where BLAS and FAISS have so many threads."""
    random = np.random.default_rng(1)
    x = (random.standard_normal((3000, 64)) * random.lognormal(0, 0.5, (3000, 1))).astype(np.float32)
    mass = random.integers(1, 300, 3000).astype(float)
    with threadpool_limits(threads, user_api="blas"):
        faiss.omp_set_num_threads(threads)
        result = craig(x, mass, np.ones(3000, np.int64), 60)
    return result.picks.tobytes(), result.distance.tobytes(), result.cluster_mass.tobytes()


def test_a_choice_is_the_same_on_any_threads_where_torch_was_loaded_first() -> None:
    """FAISS then finds the BLAS of torch, whose threads can't be limited from outside."""
    code = (
        "import torch, test_threads as t; t.shortlist.CELL_ROWS = 400; assert t.choice(1) == t.choice(2) == t.choice(5)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
