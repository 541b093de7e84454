"""A command that is killed at any file operation leaves nothing that is taken for whole, or that blocks a rerun.

A child process runs the command and dies, as by ``kill -9``, right before its n-th file operation below the output.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from killing import killed, tree
from manifest_builder import build_replay
from selection_builder import choose

from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig, LookaheadConfig
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.lookahead import lookahead
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig


def steps(stride: int) -> Iterator[int]:
    step = 0
    while True:
        yield step
        step += stride


def attack(run: Callable[[Path, int, bool], object], tmp_path: Path, stride: int = 1, resumes: bool = False) -> int:
    """Kill a first call and an ``--overwrite`` at every step; returns how many kills there were.

    Args:
        run: (out, seed, overwrite) → None, the command; the seed changes what it writes.
    """
    old, new, out = tmp_path / "old", tmp_path / "new", tmp_path / "out"
    run(old, 1, False)
    run(new, 2, False)
    before, after = tree(old), tree(new)
    assert before != after
    kills = 0
    for overwrite in (False, True):
        for step in steps(stride):
            shutil.rmtree(out, ignore_errors=True)
            if overwrite:
                shutil.copytree(old, out)
            if not killed(lambda: run(out, 2, overwrite), step, out):  # noqa: B023
                assert tree(out) == after
                break
            kills += 1
            left = tree(out)
            finished = outputs.SUCCESS in left
            if finished:  # nothing was begun, or all was done
                whole = {name: data for name, data in left.items() if not outputs.temporary_of(name)}
                whole = {name: data for name, data in whole.items() if not name.startswith(f"{outputs.WORK}/")}
                assert whole in (before, after), f"step {step}: half an output is marked as finished"
            run(out, 2, finished or (resumes and overwrite))  # what resumes has to be told to replace another run
            assert tree(out) == after, f"step {step}: a rerun gives other bytes"
    return kills


EVERY = pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.slow)])


def test_order(tmp_path):
    built = build_replay(tmp_path, shards=3, documents=4)

    def run(out, seed, overwrite):
        order(OrderConfig(replay=str(built.replay), out=str(out), seed=seed, world_size=2, overwrite=overwrite))

    assert attack(run, tmp_path) > 40


@EVERY
def test_export(tmp_path, stride):
    built = build_replay(tmp_path, shards=3, documents=4, curriculum=True)
    for seed in (1, 2):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / f"ordered-{seed}"), seed=seed, world_size=2))

    def run(out, seed, overwrite):
        config = ExportConfig(replay=str(tmp_path / f"ordered-{seed}"), out=str(out), overwrite=overwrite)
        export(config, make_steps=InlineSteps)

    assert attack(run, tmp_path, stride) * stride > 40


@pytest.mark.parametrize(
    ("method", "stride"),
    [
        ("uniform", 9),
        pytest.param("uniform", 1, marks=pytest.mark.slow),
        pytest.param("craig", 3, marks=pytest.mark.slow),
    ],
)
def test_select(run, tmp_path, method, stride):
    def select(out, seed, overwrite):
        choose(run, out, method=method, scope="global", budget=f"{10 * seed}%", overwrite=overwrite)

    assert attack(select, tmp_path, stride) * stride > 100


@pytest.mark.slow
def test_embed(tiny_lm, sample_data, tmp_path):
    def run(out, seed, overwrite):
        inputs = (str(sample_data / "old" / "*" / "*0.jsonl*"),)
        embed(
            EmbedConfig(
                inputs=inputs, model=str(tiny_lm), out=str(out), seed=seed, limit=2, max_tokens=64, overwrite=overwrite
            )
        )

    assert attack(run, tmp_path, stride=17, resumes=True) > 5


@pytest.mark.slow
def test_lookahead(tiny_lm, sample_data, tmp_path):
    def run(out, seed, overwrite):
        inputs = (str(sample_data / "new" / "*" / "*"),)
        options = {"tokens": 200, "steps": 1, "max_tokens": 32, "seed": seed, "overwrite": overwrite}
        lookahead(LookaheadConfig(model=str(tiny_lm), inputs=inputs, out=str(out), **options))

    assert attack(run, tmp_path, stride=4) > 5


@pytest.mark.slow
def test_embed_that_grows_a_pool_along_the_new_domain(tiny_lm, sample_data, tmp_path):
    options = {
        "max_tokens": 64,
        "limit": 6,
        "lookahead": (str(sample_data / "new" / "*" / "*"),),
        "lookahead_tokens": 200,
        "lookahead_steps": 1,
    }
    inputs = (str(sample_data / "old" / "docs_*" / "*0.jsonl*"),)

    def run(out, seed, overwrite):
        settings = (
            {"pool": "40%", "seed": seed} if out is None else {"pool": "70%", "seed": seed, "overwrite": overwrite}
        )
        grow = {} if out is None else {"grow": str(tmp_path / f"small-{seed}")}
        place = tmp_path / f"small-{seed}" if out is None else out
        embed(EmbedConfig(inputs=inputs, model=str(tiny_lm), out=str(place), **settings, **grow, **options))

    for seed in (1, 2):
        run(None, seed, False)
    assert attack(run, tmp_path, stride=23, resumes=True) > 4
