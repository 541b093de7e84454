"""What a model's configuration says of it, without its weights."""

from typing import Any

import torch

from cptsel.pipeline.errors import UsageError, first_line
from cptsel.pipeline.kernels.gradients.head import LogitMap
from cptsel.pipeline.model.fit import check_quantisation

_SCALES = ("logit_scale", "lm_head_multiplier", "output_multiplier_scale")  # multiply (Cohere, Falcon-H1, ...)
_DIVISORS = ("logits_scaling",)  # divide (Granite)
_SOFTCAPS = ("final_logit_softcapping", "output_logit_softcapping")


def describe(path: str, trust_remote_code: bool = False, here: bool = False) -> dict[str, Any]:
    """What run.json says of a model, from its configuration alone: its skeleton is built without weights.

    Args:
        path: folder of the model.
        trust_remote_code: whether its own code may run.
        here: whether it will run on this machine, which must then have what its quantisation needs.

    Raises:
        UsageError: not a causal LM with a plain linear head.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True)
        if here:
            check_quantisation(path, config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except UsageError:
        raise
    except Exception as error:  # a foreign configuration and foreign code may raise anything
        raise UsageError(f"--model {path}: is not a causal LM that can be built ({first_line(error)})") from error
    head = linear_head(model, path)
    logit_map = logit_map_of(config)
    return {
        "class": type(model).__name__,
        "vocab_size": head.weight.shape[0],
        "hidden_size": head.weight.shape[1],
        "embedding_rows": model.get_input_embeddings().weight.shape[0],
        "parameters": sum(p.numel() for p in model.parameters()),
        "head": {
            "tied": bool(getattr(text_config(config), "tie_word_embeddings", False)),
            "bias": head.bias is not None,
            "scale": logit_map.scale,
            "softcap": logit_map.softcap,
        },
    }


def max_positions(path: str, trust_remote_code: bool = False) -> int | None:
    """Positions that the model's configuration allows, or None where it does not say."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # a foreign configuration and foreign code may raise anything
        raise UsageError(f"--model {path}: config.json can't be understood ({first_line(error)})") from error
    return positions_of(config)


def special_of_config(path: str, trust_remote_code: bool = False) -> tuple[int | None, int | None]:
    """The ids of BOS and EOS that the model's configuration names; None where it names none."""
    from transformers import AutoConfig

    config = text_config(AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True))
    return _first_id(config.bos_token_id), _first_id(config.eos_token_id)


def _first_id(value: int | list[int] | None) -> int | None:
    return next(iter(value), None) if isinstance(value, list) else value


def linear_head(model: Any, source: str) -> torch.nn.Linear:
    """The LM head. Raises UsageError where it is no plain linear layer."""
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        raise UsageError(
            f"--model {source}: {type(model).__name__} has no plain linear LM head (it has {type(head).__name__}), "
            "so its head gradient is not defined; use a causal LM"
        )
    return head


def text_config(config: Any) -> Any:
    """The part of a configuration that speaks of text."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def positions_of(config: Any) -> int | None:
    """Positions that a configuration allows, or None where it does not say."""
    config = text_config(config)
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def logit_map_of(config: Any) -> LogitMap:
    """How logits come of the head's output."""
    config = text_config(config)
    scale = 1.0
    for name in _SCALES:
        scale *= _number(config, name) or 1.0
    for name in _DIVISORS:
        scale /= _number(config, name) or 1.0
    return LogitMap(scale, next((cap for name in _SOFTCAPS if (cap := _number(config, name))), None))


def _number(config: Any, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
