"""Small models of every kind of head, with random weights, and what loads them."""

from dataclasses import replace

import torch
import transformers

from cptsel.pipeline.model.frozen import ModelSpec

SMALL = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
GPT2 = {"vocab_size": 61, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}


def _without(*names):
    return {name: value for name, value in SMALL.items() if name not in names}


KINDS = {
    "tied": lambda: transformers.LlamaConfig(**SMALL, tie_word_embeddings=True),
    "untied": lambda: transformers.LlamaConfig(**SMALL, tie_word_embeddings=False),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
    "logit bias": lambda: transformers.PhiConfig(**_without("head_dim")),
    "scale up": lambda: transformers.CohereConfig(**SMALL, logit_scale=0.25),
    "scale down": lambda: transformers.GraniteConfig(**SMALL, logits_scaling=4.0),
    "soft-cap": lambda: transformers.Gemma2Config(**SMALL, final_logit_softcapping=5.0, sliding_window=32),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**_without("head_dim", "num_key_value_heads")),
    "qwen2": lambda: transformers.Qwen2Config(**_without("head_dim")),
    "qwen3": lambda: transformers.Qwen3Config(**SMALL),
    "gemma": lambda: transformers.GemmaConfig(**SMALL),
    "olmo2": lambda: transformers.Olmo2Config(**_without("head_dim"), pad_token_id=0),
    "mistral": lambda: transformers.MistralConfig(**SMALL),
}
EXPERTS = {"mixtral": lambda: transformers.MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2)}


def save(config, folder) -> str:
    """A model of a configuration, with random weights; returns its folder."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight.mul_(20)  # so that a soft-cap bends
        if head.bias is not None:
            head.bias.normal_()
    model.save_pretrained(folder)
    return str(folder)


def spec(source: str, **changes) -> ModelSpec:
    """Of a model on the CPU, with short sketches, but for what ``changes`` say."""
    made = ModelSpec(
        source=source,
        revision=None,
        device="cpu",
        dtype="float32",
        trust_remote_code=False,
        threads=1,
        seed=0,
        sketch_dim=64,
        validation_dim=32,
        exact_norm=True,
        max_positions=33,
    )
    return replace(made, **changes)
