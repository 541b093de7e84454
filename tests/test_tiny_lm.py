"""The script beside the sample model trains a model that transformers loads again, and that has learnt something."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SAMPLE_DATA = Path(__file__).parents[1] / "sample_data"
TEXTS = str(SAMPLE_DATA / "heldout" / "old" / "docs_de.jsonl.gz")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_tiny_lm", SAMPLE_DATA / "tiny-lm" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_few_steps_learn_and_are_saved(script, tmp_path):
    small = ["--layers", "2", "--hidden", "32", "--vocab-size", "512", "--row-length", "64"]
    loss = script.main([TEXTS, "--steps", "20", "--peak-rate", "2e-2", "--out", str(tmp_path), *small])
    assert loss < math.log(512) - 0.5  # nats; a model that knows nothing has log of the vocabulary
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.num_hidden_layers == 2
    assert model.dtype == torch.bfloat16
    assert (tmp_path / "model.safetensors").is_file()
    text = "Größe \x00 привет 你好\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_defaults_make_the_model_that_is_shipped(script):
    shipped = AutoModelForCausalLM.from_pretrained(SAMPLE_DATA / "tiny-lm").config.to_dict()
    made = script.make_model(script.parse(["x", "--out", "y"])).config.to_dict()
    assert {key: made[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")} == {
        key: shipped[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    }
    assert made["num_attention_heads"] == shipped["num_attention_heads"]
    assert made["tie_word_embeddings"] is shipped["tie_word_embeddings"] is True


def test_no_file_is_an_error_that_names_the_glob(script, tmp_path):
    with pytest.raises(SystemExit, match=r"no file matches .*nothing"):
        script.main([str(tmp_path / "nothing*"), "--out", str(tmp_path)])
