"""The reader for PyTorch gives what was written, and its loss is the KL divergence, or a lower bound of it."""

import itertools
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from cptsel.pipeline.chosen import targets as chosen_targets
from cptsel.pipeline.chosen.config import DistillConfig
from cptsel.pipeline.distill import distill
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.teacher_targets import TeacherTargets, distillation_loss, pad


@pytest.fixture(scope="module")
def written(embedded, tiny_lm, tmp_path_factory):
    """{name: folder} of several kinds; row groups are made so small that there are many."""
    folder = tmp_path_factory.mktemp("targets")
    kinds = {
        "top": {"top_k": 8},
        "all": {"top_k": 4096},
        "hidden": {"targets": "hidden"},
        "projected": {"targets": "hidden", "project": 16},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen_targets, "_ROW_GROUP_TOKENS", 48)
        for name, options in kinds.items():
            config = DistillConfig(
                replay=str(embedded.replay), model=str(tiny_lm), out=str(folder / name), unit_tokens=150, **options
            )
            distill(config, make_steps=InlineSteps)
    return folder


def rows(folder):
    return [row for path in sorted(folder.glob("data/*")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("kind", ["top", "hidden", "projected"])
def test_items_are_the_rows_by_name_and_by_index(written, tiny_lm, kind):
    targets, expected = TeacherTargets(str(written / kind)), rows(written / kind)
    assert len(targets) == len(expected)
    assert len(targets._groups) > 4  # more than are held
    prefix = [AutoModelForCausalLM.from_pretrained(tiny_lm).config.bos_token_id]
    for index in [*range(len(expected)), -1]:
        row = expected[index]
        item = targets[index]
        assert item["sample_id"] == row["sample_id"]
        assert item["input_ids"].tolist() == row["input_ids"]
        assert item["model_ids"].tolist() == [*prefix, *row["input_ids"]][: row["n_tokens"]]
        names = ["hidden"] if kind != "top" else ["top_ids", "top_log_probs", "rest_log_prob"]
        assert item.keys() == {"sample_id", "input_ids", "model_ids", *names}
        assert all(torch.equal(item[name], torch.tensor(row[name]).to(item[name].dtype)) for name in names)
        by_name = targets[row["sample_id"]]
        assert all(torch.equal(by_name[name], item[name]) for name in names)
    assert (targets.projection is not None) == (kind == "projected")
    if targets.projection is not None:
        assert targets.projection.tolist() == pq.read_table(written / kind / "projection.parquet")["row"].to_pylist()


def test_unknown_samples_are_no_items(written):
    targets = TeacherTargets(str(written / "top"))
    assert targets[0]["sample_id"] in targets
    assert "nobody" not in targets
    with pytest.raises(KeyError):
        targets["nobody"]
    with pytest.raises(IndexError):
        targets[len(targets)]


def test_what_is_no_output_is_named(written, tmp_path):
    with pytest.raises(ValueError, match="is not finished; write it by cptsel distill"):
        TeacherTargets(str(tmp_path))
    shutil.copytree(written / "top", tmp_path / "cut")
    (tmp_path / "cut/_SUCCESS").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        TeacherTargets(str(tmp_path / "cut"))


@pytest.mark.parametrize("kind", ["top", "all"])
def test_the_teacher_itself_has_no_loss(written, tiny_lm, kind):
    """Through a loader, padded: positions of the student's logits are those of the targets."""
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    targets = TeacherTargets(str(written / kind))
    for batch in DataLoader(targets, batch_size=5, collate_fn=pad):
        names = ("top_ids", "top_log_probs", "rest_log_prob", "mask")
        with torch.no_grad():
            logits = model(batch["model_ids"], attention_mask=batch["mask"].long()).logits
            assert abs(distillation_loss(logits, *(batch[name] for name in names))) < 1e-5
            assert distillation_loss(logits.roll(1, dims=1), *(batch[name] for name in names)) > 0.1


def targets_of(teacher, k):
    log_p = torch.log_softmax(teacher.double(), -1)
    top = log_p.topk(k)
    rest = (
        torch.log1p(-top.values.exp().sum(-1)) if k < teacher.shape[-1] else torch.full(teacher.shape[:-1], -torch.inf)
    )
    return top.indices, top.values, rest


def full_divergence(teacher, student):
    p, q = (torch.log_softmax(z.double(), -1) for z in (teacher, student))
    return (p.exp() * (p - q)).sum(-1)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_the_divergence_at_k_of_all_and_grows_towards_it(seed):
    generator = torch.Generator().manual_seed(seed)
    teacher, student = (3 * torch.randn(2, 4, 11, generator=generator) for _ in range(2))
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    full = float(full_divergence(teacher, student)[mask].mean())
    losses = [float(distillation_loss(student, *targets_of(teacher, k), mask)) for k in range(1, 12)]
    assert losses[-1] == pytest.approx(full, rel=1e-5)
    assert all(0 <= before <= after + 1e-6 for before, after in itertools.pairwise(losses))
    assert losses[0] < full - 1e-3


def test_the_gradient_is_that_of_the_divergence():
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(1, 3, 7, generator=generator) for _ in range(2))
    student.requires_grad_(True)
    for k in (3, 7):
        (gradient,) = torch.autograd.grad(distillation_loss(student, *targets_of(teacher, k)), student)
        p, q = torch.softmax(teacher, -1), torch.softmax(student, -1).detach()
        top = torch.zeros_like(p).scatter(-1, targets_of(teacher, k)[0], 1.0)
        rest = (q * (1 - top)) / (q * (1 - top)).sum(-1, keepdim=True).clamp_min(1e-30)
        expected = (q - p * top - rest * (p * (1 - top)).sum(-1, keepdim=True)) / 3
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_that_is_certain_leaves_no_nan():
    student = torch.zeros(1, 1, 3, requires_grad=True)
    ids, logs = torch.tensor([[[1, 0]]]), torch.tensor([[[0.0, -torch.inf]]])
    loss = distillation_loss(student, ids, logs, torch.tensor([[-torch.inf]]))
    assert loss.item() == pytest.approx(torch.tensor(3.0).log().item())
    loss.backward()
    assert torch.isfinite(student.grad).all()


def test_the_file_works_alone(written, repository, tmp_path):
    shutil.copy(repository / "src" / "cptsel" / "teacher_targets.py", tmp_path)
    code = (
        "import sys, teacher_targets as t\n"
        f"targets = t.TeacherTargets({str(written / 'top')!r})\n"
        "print(len(targets), 'cptsel' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(rows(written / "top"))), "False", "False"]
