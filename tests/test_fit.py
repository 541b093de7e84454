"""Models whose weights, tokenizer or configuration don't go together are refused before a block is embedded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.plan import plan_model
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.model.fit import check_dtype
from cptsel.pipeline.model.frozen import FrozenModel


@pytest.fixture
def model(tmp_path, tiny_lm):
    return shutil.copytree(tiny_lm, tmp_path / "model")


def configure(model, file="config.json", **values):
    path = model / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(model, change):
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def load(model):
    """What the driver looks at, and then what a worker loads."""
    config = EmbedConfig(inputs=(), model=str(model), out="", sketch_dim=8, validation_dim=8)
    return FrozenModel(plan_model(config).spec)


def spoil(value):
    def change(tensors):
        tensors["model.norm.weight"] = tensors["model.norm.weight"].clone()
        tensors["model.norm.weight"][1] = value

    return change


def test_the_model_itself_fits(model):
    assert load(model).name == "LlamaForCausalLM"


def test_more_ids_than_the_embedding_has_rows(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["zzzz", "qqqq"])
    tokenizer.save_pretrained(model)
    with pytest.raises(UsageError, match=r"2 of its ids are beyond the 4,096 rows .* the first is 4096 \('zzzz'\)"):
        load(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(model, value):
    change_weights(model, spoil(value))
    with pytest.raises(UsageError, match=r"the tensor model\.norm\.weight holds infinite numbers or NaN"):
        load(model)


def test_tensors_that_no_file_has_are_not_made_up(model):
    change_weights(model, lambda tensors: tensors.pop("model.layers.0.mlp.down_proj.weight"))
    with pytest.raises(UsageError, match=r"lack 1 of the tensors .*\(model\.layers\.0\.mlp\.down_proj\.weight\)"):
        load(model)


def test_weights_of_another_shape(model):
    configure(model, intermediate_size=24)
    with pytest.raises(UsageError, match=r"down_proj\.weight is \(256, \d+\) in the weight files and \(256, 24\) by"):
        load(model)


@pytest.mark.parametrize("library", ["bitsandbytes", "gptq", "nonsense"])
def test_a_quantised_checkpoint_whose_library_is_missing(model, library):
    details = {"bits": 4, "group_size": 128, "dataset": "c4"} if library == "gptq" else {"load_in_4bit": True}
    configure(model, quantization_config={"quant_method": library, **details})
    with pytest.raises(UsageError, match=rf"quantised \(by {library}\) and can't be loaded here"):
        load(model)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": ', "config.json can't be understood"),
        ("[]", "config.json can't be understood"),
        ('{"model_type": "nosuch"}', "config.json can't be understood .*nosuch"),
        ('{"model_type": "llama", "num_hidden_layers": "two"}', "config.json can't be understood"),
        ('{"model_type": "t5"}', "is not a causal LM that can be built"),
    ],
)
def test_a_configuration_that_says_nothing(model, text, sentence):
    (model / "config.json").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        load(model)


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_tokenizer_that_is_not_there_or_damaged(model, text):
    for path in model.glob("token*"):
        path.unlink()
    if text is not None:
        (model / "tokenizer.json").write_text(text)
    with pytest.raises(UsageError, match=r"its tokenizer can't be loaded .*; point at a folder"):
        load(model)


@pytest.mark.parametrize("kept", [100, -100])
def test_weight_files_that_were_cut(model, kept):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match="can't be loaded as a causal LM"):
        load(model)


@pytest.mark.parametrize("index", ["{", '{"weight_map": 3}', "[]"])
def test_an_index_of_weight_files_that_can_not_be_read(model, index):
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UsageError, match="its index of weight files can't be read"):
        load(model)


def test_a_dtype_that_the_device_can_not_do(monkeypatch):
    def refuse(*_args):
        raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'")

    check_dtype("float32", "cpu")
    monkeypatch.setattr(torch.nn.functional, "linear", refuse)
    with pytest.raises(UsageError, match=r"--dtype float16: the device cpu can't do it .*not implemented for 'Half'"):
        check_dtype("float16", "cpu")
