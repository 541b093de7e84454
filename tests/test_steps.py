"""Steps: what becomes of errors of tasks, of the runner, and of this code."""

from concurrent.futures import ThreadPoolExecutor

import faiss
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from cptsel.pipeline.engine import steps, tasks
from cptsel.pipeline.errors import BadInputError, PartialError


def double(task):
    if task == 13:
        raise BadInputError("thirteen can't be doubled")
    if task < 0:
        raise RuntimeError("no memory left") if task == -1 else ValueError("a bug")
    return 2 * task


def make(tmp_path):
    return steps.Steps(str(tmp_path / "work"), (), 1, None)


def test_values_come_in_the_order_of_tasks(tmp_path):
    assert make(tmp_path).run("double", double, [3, 1, 2]) == [6, 2, 4]


def test_an_error_of_a_task_is_raised_as_it_is(tmp_path):
    with pytest.raises(BadInputError, match=r"^thirteen can't be doubled$"):
        make(tmp_path).run("double", double, [1, 13])


def test_a_failed_worker_is_one_sentence(tmp_path):
    with pytest.raises(PartialError, match=r"^the step 'double' failed: .*no memory left[^\n]*--debug to see more$"):
        make(tmp_path).run("double", double, [-1])


def test_a_bug_in_a_task_is_no_failure_of_the_runner(tmp_path):
    with pytest.raises(ValueError, match="a bug"):
        make(tmp_path).run("double", double, [-2])


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(OSError("disk full"), PartialError), (PartialError("a worker died"), PartialError),
     (TypeError("a bug"), TypeError), (KeyboardInterrupt(), KeyboardInterrupt)],
)  # fmt: skip
def test_only_failures_of_the_runner_are_reported_as_such(tmp_path, monkeypatch, raised, expected):
    def fail(options):
        raise raised

    monkeypatch.setattr(tasks, "make_pipeline", fail)
    with pytest.raises(expected) as caught:
        make(tmp_path).run("double", double, [1])
    if expected is type(raised):
        assert caught.value is raised


def threads(task):
    """Of every BLAS, and of FAISS."""
    of_blas = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
    return [*sorted(of_blas), faiss.omp_get_max_threads()]


def test_a_task_has_one_thread_and_the_caller_what_it_had(tmp_path):
    """Sums of BLAS hang on the number of threads; workers may be the caller's process."""
    with threadpool_limits(2, user_api="blas"):
        faiss.omp_set_num_threads(2)
        assert threads(None) == [2, 2]
        assert make(tmp_path).run("threads", threads, [1, 2]) == [[1, 1]] * 2
        assert threads(None) == [2, 2]


def test_every_thread_of_a_worker_has_one_of_faiss():
    """OpenMP keeps the number for each thread by itself, and Beam calls from any of a worker's."""
    alone = steps._OnOneThread(lambda task: faiss.omp_get_max_threads())
    for _ in range(2):
        with ThreadPoolExecutor(1, initializer=faiss.omp_set_num_threads, initargs=(3,)) as thread:
            assert thread.submit(faiss.omp_get_max_threads).result() == 3
            assert thread.submit(alone, None).result() == 1
            assert thread.submit(faiss.omp_get_max_threads).result() == 3
