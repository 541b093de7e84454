"""Models whose parts lie on several devices, or outside of them: the same numbers, or a sentence.

A machine without a GPU has the host and the disk alone; what of them differs from one device is tried here.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from model_builder import spec
from safetensors.torch import load_file, save_file

from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.model import device_map
from cptsel.pipeline.model.device_map import device_of_map, parse_device_map
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.registry import GRADIENTS

pytest.importorskip("accelerate")

LLAMA = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2 = {"vocab_size": 61, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
KINDS = {
    "tied": lambda: transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "untied": lambda: transformers.LlamaConfig(**LLAMA, tie_word_embeddings=False),
    "soft-cap": lambda: transformers.Gemma2Config(**LLAMA, head_dim=8, final_logit_softcapping=5.0, sliding_window=32),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
}


def saved(kind, folder):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(KINDS[kind]())
    model.save_pretrained(folder)
    return str(folder), model


def parts_of(model, **places):
    """Every part on the CPU, layers by number elsewhere where ``places`` says so, as in ``_1="disk"``."""
    parts = {"lm_head": "cpu"}
    base = model.base_model_prefix
    for name, module in model.base_model.named_children():
        if isinstance(module, torch.nn.ModuleList):
            parts |= {f"{base}.{name}.{i}": places.get(f"_{i}", "cpu") for i in range(len(module))}
        else:
            parts[f"{base}.{name}"] = "cpu"
    return parts


def spread(source, parts, gradient="head"):
    """A model whose parts lie where ``parts`` say; on one device where that is None."""
    places = tuple(sorted(parts.items())) if isinstance(parts, dict) else parts
    return spec(source, gradient=gradient, mixing=(0.5, 2.0), device_map=places)


def gradients(made):
    found = GRADIENTS[made.gradient](FrozenModel(made)).of_windows([np.arange(1, 20) * 5 % 61, np.arange(3, 12)])
    return [x.numpy().tobytes() for x in (found.sketch, found.validation, found.loss_sum, found.exact_norm)]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_one_device_to_the_byte(kind, tmp_path):
    source, model = saved(kind, tmp_path)
    assert gradients(spread(source, parts_of(model, _0="disk", _2="disk"))) == gradients(spread(source, None))
    assert gradients(spread(source, "auto", "head+body")) == gradients(spread(source, None, "head+body"))


def test_a_layer_on_disk_is_not_held_and_its_weights_are_looked_at(tmp_path):
    source, model = saved("untied", tmp_path)
    made = spread(source, parts_of(model, _1="disk"))
    frozen = FrozenModel(made)
    assert [p.is_meta for p in frozen.model.model.layers[1].parameters()].count(False) == 0
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"the tensor model\.layers\.1\.mlp\.up_proj\.weight holds infinite"):
        FrozenModel(made)


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_head_that_lies_outside_is_refused(kind, tmp_path):
    source, model = saved(kind, tmp_path)
    parts = parts_of(model) | {"lm_head": "disk"}
    if kind == "tied":
        parts["model.embed_tokens"] = "disk"
    with pytest.raises(UsageError, match=r"^--device-map: the LM head of LlamaForCausalLM.*puts lm_head on a device$"):
        FrozenModel(spread(source, parts))


def test_a_layer_of_the_body_that_lies_outside_is_refused_by_name(tmp_path):
    source, model = saved("untied", tmp_path)
    made = spread(source, parts_of(model, _1="disk"), "body")
    with pytest.raises(UsageError, match=r"^--device-map: layers\.1\.self_attn\.q_proj of .* or use --gradient head$"):
        GRADIENTS["body"](FrozenModel(made))
    narrowed = replace(made, modules="layers.0.*")
    assert gradients(narrowed) == gradients(replace(narrowed, device_map=None))


def test_a_map_that_leaves_out_a_part_is_refused(tmp_path):
    source, model = saved("untied", tmp_path)
    parts = parts_of(model, _0="disk")
    del parts["model.layers.1"]
    with pytest.raises(
        UsageError, match=r"^--model .*: can't be loaded as a causal LM \(.*device_map.*model\.layers\.1"
    ):
        FrozenModel(spread(source, parts))


def test_a_run_has_the_rows_of_one_without_a_map(tiny_lm, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": f"One and {i} are many. " * 9}) + "\n" for i in range(4))
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_lm)
    (tmp_path / "map.json").write_text(json.dumps(parts_of(model, _1="disk", _3="disk")))

    def run(name, **options):
        out = tmp_path / name
        settings = {"inputs": (str(tmp_path / "a.jsonl"),), "model": str(tiny_lm), "max_tokens": 24, "out": str(out)}
        embed(EmbedConfig(**settings, **options))
        return [path.read_bytes() for path in sorted((out / "embeddings").iterdir())]

    plain = run("plain")
    assert run("mapped", device_map=str(tmp_path / "map.json")) == plain
    before = (tmp_path / "plain" / "run.json").read_bytes()
    assert run("plain", device_map="auto") == plain  # a rerun, to which it is no difference
    assert (tmp_path / "plain" / "run.json").read_bytes() == before


def test_what_is_no_map_is_refused(tmp_path):
    for text in ("[]", "{}", '{"lm_head": true}', '{"lm_head": null}', "{"):
        (tmp_path / "map.json").write_text(text)
        with pytest.raises(ValueError, match=r"map\.json"):
            parse_device_map(str(tmp_path / "map.json"))
    (tmp_path / "place.json").write_text('{"model": "gpu"}')
    with pytest.raises(ValueError, match="'gpu' is no place for a part"):
        parse_device_map(str(tmp_path / "place.json"))
    with pytest.raises(ValueError, match="neither auto nor a JSON file"):
        parse_device_map("balanced")
    (tmp_path / "map.json").write_text('{"model": "disk", "lm_head": 1}')
    assert parse_device_map(str(tmp_path / "map.json")) == (("lm_head", 1), ("model", "disk"))


def test_the_device_is_that_of_the_map(monkeypatch):
    assert device_of_map("auto", True) == "auto"
    assert device_of_map((("lm_head", "cpu"), ("model", "disk")), True) == "cpu"
    assert device_of_map((("lm_head", 0), ("model", "cpu")), True) == "cuda"
    monkeypatch.setattr(device_map.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"accelerate is not installed; install it: pip install 'cptsel\[accelerate\]'"
    ):
        device_of_map("auto", True)
    assert device_of_map("auto", False) == "auto"


@pytest.mark.parametrize(
    ("options", "words"), [({"device": "cpu"}, "--device auto"), ({"lookahead": ("x",)}, "trained")]
)
def test_options_that_do_not_go_with_it_are_refused(options, words, tiny_lm, tmp_path):
    config = EmbedConfig(inputs=("x",), model=str(tiny_lm), out=str(tmp_path / "out"), device_map="auto", **options)
    with pytest.raises(UsageError, match=f"--device-map.*{words}"):
        embed(config)
