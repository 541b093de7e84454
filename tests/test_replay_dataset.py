"""The datasets for PyTorch give the plays of an export, in their order, for any number of workers, and resume."""

import json
import re
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch
from manifest_builder import build_replay
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.replay_dataset import Mixed, MixedDataset, ReplayDataset, ReplayStream, weighted_loss


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_replay(tmp_path_factory.mktemp("built"), shards=5, documents=8)


@pytest.fixture(scope="module")
def ordered(built):
    folder = built.replay.parent
    order(OrderConfig(replay=str(built.replay), out=str(folder / "ordered"), epochs=2, world_size=2))
    export(ExportConfig(replay=str(folder / "ordered"), out=str(folder / "parquet"), to="parquet"))
    return folder / "parquet"


def plays(directory, place="data"):
    return [row for path in sorted((directory / place).rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize(("epoch", "rank"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_plays_are_those_of_the_rank_by_index(ordered, epoch, rank):
    replay = ReplayDataset(str(ordered), epoch=epoch, rank=rank, check=True)
    expected = plays(ordered, f"data/epoch-{epoch:03d}/rank-{rank:05d}")
    assert [replay[index] for index in range(len(replay))] == expected
    assert [replay[-1], replay[0]] == [expected[-1], expected[0]]
    with pytest.raises(IndexError):
        replay[len(replay)]


def test_ranks_together_play_the_manifest(ordered, built):
    ranks = [ReplayDataset(str(ordered), rank=rank) for rank in (0, 1)]
    found = [(play["sample_id"], play["text"], play["repeat"]) for replay in ranks for play in replay]
    assert sorted(found) == built.plays()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_stream_keeps_the_order_with_any_number_of_workers(ordered, batch_size, workers):
    replay = ReplayDataset(str(ordered))
    stream = ReplayStream(replay, batch_size, transform=lambda play: play["sample_id"])
    loader = DataLoader(stream, batch_size=batch_size, num_workers=workers, multiprocessing_context=fork(workers))
    batches = [list(batch) for batch in loader]
    expected = [play["sample_id"] for play in replay]
    assert [name for batch in batches for name in batch] == expected
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


def fork(workers):
    return "fork" if workers else None


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_resumes_where_the_trainer_stopped(ordered, workers):
    replay = ReplayDataset(str(ordered))
    names = [play["sample_id"] for play in replay]
    seen, state = [], None
    while len(seen) < len(names):
        stream = ReplayStream(replay, 2, transform=lambda play: play["sample_id"])
        if state is not None:
            stream.load_state_dict(json.loads(json.dumps(state)))
        taken = 0
        for batch in DataLoader(stream, batch_size=2, num_workers=workers, multiprocessing_context=fork(workers)):
            seen += batch
            taken += len(batch)
            if taken == 6:  # and is killed
                break
        state = stream.state_dict(taken)
    assert seen == names


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.25, 0.3, 0.9])
def test_the_mix_is_right_at_every_point(fraction):
    mixed = Mixed(("new" for _ in range(1000)), ("old" for _ in range(1000)), fraction)
    replayed = 0
    for count, item in enumerate(mixed, 1):
        replayed += item == "old"
        assert abs(replayed - count * fraction) < 1
    assert max(replayed, count - replayed) == 1000
    with pytest.raises(ValueError, match="must be at least 0 and below 1"):
        Mixed([], [], 1.0)


def test_losses_are_weighted_by_row():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    labels[1, 3:] = -100
    weight = torch.tensor([1.0, 0.0, 2.5])
    total = 0.0
    for row in range(3):
        for step in range(5):
            if labels[row, step] >= 0:
                total -= weight[row] * torch.log_softmax(logits[row, step], 0)[labels[row, step]]
    assert weighted_loss(logits, labels, weight).item() == pytest.approx(float(total) / 13, rel=1e-5)


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.25, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("sizes", [(30, 7), (3, 40), (0, 5), (100, 0)])
def test_mixing_by_index_is_mixing_of_streams(sizes, fraction):
    new, replay = [f"new {i}" for i in range(sizes[0])], [f"replay {i}" for i in range(sizes[1])]
    mixed = MixedDataset(new, replay, fraction)
    assert [mixed[index] for index in range(len(mixed))] == list(Mixed(new, replay, fraction))
    with pytest.raises(IndexError):
        mixed[len(mixed)]


def test_what_can_not_be_played_is_named(ordered, built, tmp_path):
    for key, number in (("epoch", 2), ("rank", 5)):
        with pytest.raises(ValueError, match=f"has no plays of {key} {number}; it has plays of {key}s 0 to 1"):
            ReplayDataset(str(ordered), **{key: number})
    with pytest.raises(ValueError, match="no phase 1; it has one phase"):
        ReplayDataset(str(ordered), phase=1)
    with pytest.raises(ValueError, match="is no finished export"):
        ReplayDataset(str(tmp_path))
    export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "lines")))
    with pytest.raises(ValueError, match="was exported as jsonl"):
        ReplayDataset(str(tmp_path / "lines"))
    shutil.copytree(ordered, tmp_path / "changed")
    path = next((tmp_path / "changed" / "data/epoch-000/rank-00000").iterdir())
    data = bytearray(path.read_bytes())
    data[6] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is not the file that was exported"):
        ReplayDataset(str(tmp_path / "changed"), check=True)


def test_the_file_lies_beside_the_data_and_works_alone(ordered, repository, tmp_path):
    code = (
        f"import sys\nsys.path.insert(0, {str(ordered / 'code')!r})\nimport replay_dataset as r\n"
        f"print(len(r.ReplayDataset({str(ordered)!r})), 'cptsel' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(ReplayDataset(str(ordered)))), "False", "False"]
    (beside,) = (ordered / "code").glob("*.py")
    assert beside.read_bytes() == (repository / "src" / "cptsel" / "replay_dataset.py").read_bytes()


def recipe(directory, trainer, monkeypatch, **names):
    """The names that a recipe of TRAINING.md defines when it is run; ``names`` are those that it takes as given."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "replay_dataset", raising=False)
    section = (directory / "TRAINING.md").read_text().partition(f"\n## {trainer}")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1].replace("EXPORT", str(directory))
    exec(compile(code, "TRAINING.md", "exec"), names)
    assert sys.modules["replay_dataset"].__file__ == str(directory / "code/replay_dataset.py")
    return names


def test_the_recipe_for_pytorch_runs(ordered, monkeypatch):
    found = recipe(ordered, "PyTorch, with", monkeypatch, new_batches=["new"] * 40, replay_batches=["old"] * 9)
    assert list(found["replay"]) == plays(ordered, "data/epoch-000/rank-00000") == list(found["stream"])
    assert list(found["batches"])[:40].count("old") == 2


def test_the_recipe_for_the_hugging_face_trainer_runs(embedded, tiny_lm, tmp_path, monkeypatch):
    out = tmp_path / "export"
    export(ExportConfig(replay=str(embedded.replay), out=str(out), to="parquet", ids=True), make_steps=InlineSteps)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_lm), AutoModelForCausalLM.from_pretrained(tiny_lm)
    seen = []
    monkeypatch.setattr(model, "forward", lambda forward=model.forward, **batch: seen.append(batch) or forward(**batch))
    monkeypatch.chdir(tmp_path)
    new = [{"input_ids": [5, 6, 7]}] * 19
    found = recipe(out, "Hugging Face Trainer", monkeypatch, tokenizer=tokenizer, model=model, new=new)
    first = plays(out)[0]["input_ids"]
    assert len(found["mixed"]) == 20
    assert [len(batch["labels"]) for batch in seen] == [8, 8, 4]
    last = seen[2]["labels"][-1].tolist()
    assert [id for id in last if id >= 0] == [tokenizer.bos_token_id, *first]
    assert seen[0]["labels"].tolist() == [[tokenizer.bos_token_id, 5, 6, 7]] * 8
