"""What must hold between a model's weights, its tokenizer and its configuration, found before anything is embedded."""

from collections.abc import Mapping
from typing import Any

import torch

from cptsel.pipeline.errors import UsageError, first_line
from cptsel.pipeline.model.device_map import weights_of


def check_tokenizer(model: str, tokenizer: Any, rows: int) -> None:
    """Hold every id that the tokenizer can make against the rows of the embedding.

    Args:
        model: as given, for the sentence.
        tokenizer: of transformers.
        rows: of the input embedding or of the LM head, whichever has fewer.

    Raises:
        UsageError: an id is beyond them.
    """
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if beyond:
        number, token = beyond[0]
        raise UsageError(
            f"--model {model}: its tokenizer does not fit: {len(beyond):,} of its ids are beyond the {rows:,} rows of "
            f"the embedding, the first is {number} ({token!r}); take the tokenizer that the model was trained with, or "
            "resize the embedding (model.resize_token_embeddings)"
        )


def check_quantisation(model: str, config: Any) -> None:
    """Refuse a quantised checkpoint that can't be loaded on this machine.

    Raises:
        UsageError: the library that it needs is missing, or the device.
    """
    declared = getattr(config, "quantization_config", None)
    if declared is None:
        return
    from transformers.quantizers import AutoHfQuantizer

    declares = declared if isinstance(declared, dict) else vars(declared)
    method = getattr(declares.get("quant_method"), "value", declares.get("quant_method"))
    try:
        AutoHfQuantizer.from_config(declared, pre_quantized=True).validate_environment()
    except Exception as error:  # of a foreign library
        raise UsageError(
            f"--model {model}: its weights are quantised (by {method}) and can't be loaded here "
            f"({first_line(error)}); install what is missing, or give a checkpoint that is not quantised"
        ) from error


def check_dtype(dtype: str, device: str) -> None:
    """Multiply two numbers in a dtype on a device.

    Raises:
        UsageError: the device can't.
    """
    try:
        one = torch.ones(1, 1, dtype=getattr(torch, dtype), device=device)
        torch.nn.functional.linear(one, one)
    except RuntimeError as error:
        raise UsageError(
            f"--dtype {dtype}: the device {device} can't do it ({first_line(error)}); use another --dtype or --device"
        ) from error


def check_weights(model: str, module: torch.nn.Module, loading: Mapping[str, Any]) -> None:
    """Refuse weights that are made up, of another shape, infinite or no numbers.

    Args:
        model: as given, for the sentence.
        module: the model as loaded.
        loading: what transformers says of it: ``missing_keys`` and ``mismatched_keys`` were filled with random numbers.

    Raises:
        UsageError: there is one.
    """
    for name, in_file, in_model in sorted(loading["mismatched_keys"]):
        raise UsageError(
            f"--model {model}: the tensor {name} is {tuple(in_file)} in the weight files and {tuple(in_model)} by "
            "config.json; they are not of one model: download it again"
        )
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise UsageError(
            f"--model {model}: its weight files lack {len(missing)} of the tensors that {type(module).__name__} has "
            f"({', '.join(missing[:3])}); download it again, or save it anew from the class that it was trained as"
        )
    for name, tensor in weights_of(module):
        if tensor.is_floating_point() and tensor.numel():
            low, high = torch.aminmax(tensor.detach())  # NaN comes through both
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise UsageError(
                    f"--model {model}: the tensor {name} holds infinite numbers or NaN; its training or its conversion "
                    "went wrong: take another checkpoint"
                )
