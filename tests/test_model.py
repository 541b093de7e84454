"""Models of every kind of head: handled and right, or refused by name."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from model_builder import EXPERTS, KINDS, save, spec

from cptsel.pipeline.embedding.block import BlockEmbedder, RowOptions
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.plan import plan_model, with_held
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.model import configuration
from cptsel.pipeline.model.configuration import describe
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.head import HeadGradient
from cptsel.pipeline.model.naming import local_path, resolve_device, resolve_dtype, weights_fingerprint
from cptsel.pipeline.model.tokenizer import load_tokenizer, prefix_of, tokenizer_fingerprint, vocabulary_of


@pytest.mark.parametrize("kind", KINDS | EXPERTS)
def test_gradient_of_every_kind_of_head_equals_autograd(kind, tmp_path):
    source = save((KINDS | EXPERTS)[kind](), tmp_path)
    frozen = FrozenModel(spec(source))
    ids = [np.arange(1, 20) * 5 % 61, np.arange(3, 12) * 7 % 61]
    taken = HeadGradient(frozen)
    result = taken.of_windows(ids)
    model = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())  # untied: the head's own gradient
    for i, row in enumerate(ids):
        tokens = torch.as_tensor(row).unsqueeze(0)
        logits = model(input_ids=tokens[:, :-1]).logits[0].float()
        loss = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, head.weight)
        assert float(result.loss_sum[i]) == pytest.approx(float(loss.detach()), rel=1e-4)
        assert float(result.exact_norm[i]) == pytest.approx(float(gradient.norm()), rel=1e-4)
        expected = taken.sketch.sketch(gradient.T.contiguous(), torch.eye(gradient.shape[1]))
        torch.testing.assert_close(result.sketch[i], expected, rtol=1e-3, atol=1e-3 * float(gradient.norm()))
    facts = describe(source)["head"]
    assert facts["bias"] == (kind == "logit bias")
    assert facts["tied"] == (frozen.model.get_input_embeddings().weight is frozen.head.weight)
    assert facts["scale"] == {"scale up": 0.25, "scale down": 0.25}.get(kind, 1.0)
    assert facts["softcap"] == (5.0 if kind == "soft-cap" else None)


def test_a_head_that_can_not_be_seen_is_refused_by_name(tmp_path, monkeypatch):
    source = save(KINDS["soft-cap"](), tmp_path)
    monkeypatch.setattr(configuration, "_SOFTCAPS", ())
    with pytest.raises(UsageError, match="Gemma2ForCausalLM are not its LM head's output"):
        FrozenModel(spec(source))


def test_a_model_that_sees_what_comes_after_is_refused(tmp_path):
    config = transformers.BertConfig(
        vocab_size=61, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    source = save(config, tmp_path)
    with pytest.raises(UsageError, match="BertLMHeadModel"):
        FrozenModel(spec(source))


def test_what_is_not_a_model_is_named(tmp_path, tiny_lm):
    with pytest.raises(UsageError, match=r"no config\.json"):
        local_path(str(tmp_path), None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="safetensors only"):
        local_path(str(tmp_path), None)
    with pytest.raises(UsageError, match="--model nobody/nothing-at-all"):
        local_path("nobody/nothing-at-all", None)
    with pytest.raises(UsageError, match=r"cuda.*no usable GPU" if not torch.cuda.is_available() else "must be"):
        resolve_device("cuda" if not torch.cuda.is_available() else "tpu")
    with pytest.raises(UsageError, match="must be auto, cpu"):
        resolve_device("tpu")
    with pytest.raises(UsageError, match="2000 positions are needed"):
        FrozenModel(spec(str(tiny_lm), max_positions=2000))


def test_fingerprints_name_weights_and_tokenizer(tmp_path, tiny_lm):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_lm, copy)
    assert weights_fingerprint(str(copy)) == weights_fingerprint(str(tiny_lm))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "0.0"}))
    assert weights_fingerprint(str(copy)) == weights_fingerprint(str(tiny_lm))
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    assert weights_fingerprint(str(copy)) != weights_fingerprint(str(tiny_lm))
    (copy / "config.json").write_text(json.dumps(config))
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert weights_fingerprint(str(copy)) != weights_fingerprint(str(tiny_lm))
    tokenizer = load_tokenizer(str(tiny_lm))
    before = tokenizer_fingerprint(tokenizer)
    tokenizer.add_tokens(["cptsel"])
    assert tokenizer_fingerprint(tokenizer) != before


def test_a_worker_with_another_model_under_the_same_path_is_refused(tmp_path, tiny_lm):
    copy, before = tmp_path / "model", tmp_path / "before"
    for folder in (copy, before):
        shutil.copytree(tiny_lm, folder)
    config = EmbedConfig(inputs=("x",), model=str(copy), out="x")
    plan = plan_model(config)
    plan = replace(plan, spec=replace(plan.spec, base=(str(before), None)))
    rows = RowOptions(plan.max_tokens, 256, "float16", ())
    held = with_held(plan, plan.weights).spec
    BlockEmbedder(held, rows)
    for folder, name in ((copy, "config.json"), (before, "config.json")):
        kept = (folder / name).read_text()
        (folder / name).write_text(json.dumps(json.loads(kept) | {"rope_theta": 9.0}))
        with pytest.raises(UsageError, match=rf"--model {folder}: a worker on .* has another .*\(its weights differ\)"):
            BlockEmbedder(held, rows)
        (folder / name).write_text(kept)
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UsageError, match=r"another model .*\(its tokenizer differs\)"):
        BlockEmbedder(held, rows)
    BlockEmbedder(plan.spec, rows)  # on one machine nothing is read twice
    (copy / "config.json").unlink()
    with pytest.raises(UsageError, match=r"no config.json there; .* \(on a worker, "):
        FrozenModel(held)


def test_a_vocabulary_holds_every_id(tiny_lm):
    """Two bytes an id are enough, or not, for the largest id there is, not for as many as there are."""
    known = load_tokenizer(str(tiny_lm))
    assert vocabulary_of(known).size == len(known)
    words = {"a": 0, "<eos>": 1, "b": 70_000}
    gapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "a")), eos_token="<eos>"
    )
    assert (vocabulary_of(gapped).size, vocabulary_of(gapped).eos) == (70_001, 1)


def test_prefix_is_bos_else_eos_else_nothing(tiny_lm):
    tokenizer = load_tokenizer(str(tiny_lm))
    assert prefix_of(tokenizer).kind == "bos"
    tokenizer.bos_token = None
    assert prefix_of(tokenizer).kind == "eos"
    tokenizer.eos_token = None
    assert (prefix_of(tokenizer).kind, prefix_of(tokenizer).ids) == ("none", ())


def test_auto_dtype(tiny_lm):
    assert resolve_dtype("auto", "cpu", str(tiny_lm)) == "float32"
    assert resolve_dtype("auto", "cuda", str(tiny_lm)) == "bfloat16"
    assert resolve_dtype("float16", "cpu", str(tiny_lm)) == "float16"
