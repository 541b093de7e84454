"""The frozen model: loading it, naming it by fingerprints, and proving that we see its LM head as it is.

Nothing is believed of a model class. At load a probe runs the whole model once and holds three things against it: that
the base model's output is what the head reads, that the logits are the head's output through a scale and a soft-cap
(docs/design.md, Head gradient), and that padding on the right changes nothing. What does not fit is refused by name.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cptsel.pipeline.errors import UsageError, first_line
from cptsel.pipeline.kernels.gradients.head import HeadGradients, LogitMap, head_gradients
from cptsel.pipeline.kernels.gradients.sketch import K_V, K_V_VALIDATION, HeadSketch
from cptsel.pipeline.model.fit import check_dtype, check_quantisation, check_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]
_SCALES = ("logit_scale", "lm_head_multiplier", "output_multiplier_scale")  # multiply (Cohere, Falcon-H1, ...)
_DIVISORS = ("logits_scaling",)  # divide (Granite)
_SOFTCAPS = ("final_logit_softcapping", "output_logit_softcapping")


@dataclass(frozen=True)
class ModelSpec:
    """What a worker needs to load the model that the driver looked at."""

    source: str
    revision: str | None
    device: str
    dtype: str
    trust_remote_code: bool
    threads: int
    seed: int
    sketch_dim: int
    validation_dim: int
    exact_norm: bool
    max_positions: int


def local_path(model: str, revision: str | None) -> str:
    """The folder of a model: the path itself, or the hub snapshot of an id, safetensors and tokenizer files only.

    Raises:
        UsageError: neither a folder nor a hub id that can be had, or a folder without config.json or safetensors.
    """
    path = model
    if not os.path.isdir(model):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            path = snapshot_download(model, revision=revision, allow_patterns=HUB_FILES)
        except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise UsageError(
                f"--model {model}: not a local folder, and the hub does not give it ({reason}); "
                "check the spelling or download it first"
            ) from error
    if not os.path.isfile(os.path.join(path, "config.json")):
        raise UsageError(f"--model {model}: no config.json there; point at a folder that save_pretrained wrote")
    if not weight_files(path):
        raise UsageError(
            f"--model {model}: no model.safetensors (nor an index of several) there; weights load from safetensors "
            "only: convert them with save_pretrained(..., safe_serialization=True)"
        )
    return path


def weight_files(path: str) -> list[str]:
    """Names of the safetensors files that the model loads, sorted."""
    if os.path.isfile(os.path.join(path, "model.safetensors")):  # what transformers looks for first
        return ["model.safetensors"]
    index = os.path.join(path, "model.safetensors.index.json")
    if os.path.isfile(index):
        try:
            with open(index, encoding="utf-8") as handle:
                return sorted(set(json.load(handle)["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"--model {path}: its index of weight files can't be read; download it again") from error
    return []


def pinned_revision(path: str, source: str) -> str | None:
    """The commit that a hub snapshot is of (its folder's name); None for a local folder."""
    return None if os.path.isdir(source) else os.path.basename(os.path.normpath(path))


def weights_fingerprint(path: str, remote_code: bool = False) -> str:
    """SHA-256, in hex, over config.json's values and the bytes of every weight file, by name.

    The version of transformers that wrote the configuration does not count; Python files do where they are run.
    """
    digest = hashlib.sha256()
    with open(os.path.join(path, "config.json"), encoding="utf-8") as handle:
        config = json.load(handle)
    config.pop("transformers_version", None)
    digest.update(json.dumps(config, sort_keys=True).encode())
    code = sorted(name for name in os.listdir(path) if name.endswith(".py")) if remote_code else []
    for name in [*weight_files(path), *code]:
        file = os.path.join(path, name)
        if not os.path.isfile(file):
            raise UsageError(f"--model {path}: the index names {name}, which is not there; download it again")
        with open(file, "rb") as handle:
            digest.update(name.encode() + hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def resolve_device(device: str, here: bool = True) -> str:
    """``auto`` is the GPU where this machine has one, else the CPU.

    Args:
        device: as asked for.
        here: whether it is to be a device of this machine, not of workers elsewhere.

    Raises:
        UsageError: no device, or one that this machine does not have and should.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.split(":")[0]
    if kind not in {"cpu", "cuda"}:
        raise UsageError(f"--device {device}: must be auto, cpu, cuda or cuda:N")
    if here and kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: this machine has no usable GPU; use --device cpu")
    return device


def resolve_dtype(dtype: str, device: str, path: str) -> str:
    """``auto`` is float32 on a CPU and the checkpoint's own dtype on a GPU."""
    if dtype != "auto":
        return dtype
    if device == "cpu":
        return "float32"
    with open(os.path.join(path, "config.json"), encoding="utf-8") as handle:
        config = json.load(handle)
    stored = config.get("dtype") or config.get("torch_dtype")
    return stored if stored in DTYPES else "bfloat16"


class FrozenModel:
    """A causal LM in evaluation mode with the tables of its sketches; made by workers, once a process."""

    def __init__(self, spec: ModelSpec):
        """Load and probe. Raises UsageError naming what cptsel can't handle in this model."""
        self.spec = spec
        resolve_device(spec.device)
        self.path = local_path(spec.source, spec.revision)
        torch.set_num_threads(spec.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        check_dtype(spec.dtype, spec.device)
        self.model = _load(spec, self.path)
        self.name = type(self.model).__name__
        self.head = _linear_head(self.model, spec.source)
        self.base = self.model.base_model
        if self.base is self.model:
            raise UsageError(f"--model {spec.source}: {self.name} has no base model apart from its head")
        limit = _max_positions(self.model.config)
        if limit is not None and spec.max_positions > limit:
            raise UsageError(f"--max-tokens: {spec.max_positions} positions are needed, but {self.name} has {limit}")
        self.logit_map = _logit_map(self.model.config)
        vocab, width = self.head.weight.shape
        self.sketch = HeadSketch.create(spec.seed, "head", vocab, width, spec.sketch_dim, K_V, spec.device)
        self.validation = HeadSketch.create(
            spec.seed, "head/validation", vocab, width, spec.validation_dim, K_V_VALIDATION, spec.device
        )
        self._probe()

    def gradients(self, ids: Sequence[np.ndarray]) -> HeadGradients:
        """Embed one batch.

        Args:
            ids: per sample the prefix and the window's own token ids, int; at least two each.

        Returns:
            HeadGradients of the batch, on the model's device, in the order given.
        """
        with torch.inference_mode():
            lengths = torch.tensor([len(row) - 1 for row in ids])
            tokens = torch.zeros(len(ids), int(lengths.max()) + 1, dtype=torch.int64)
            for i, row in enumerate(ids):
                tokens[i, : len(row)] = torch.as_tensor(row, dtype=torch.int64)
            tokens, lengths = tokens.to(self.spec.device), lengths.to(self.spec.device)
            return head_gradients(
                self._hidden(tokens[:, :-1], lengths),
                tokens[:, 1:],
                lengths,
                self.head.weight,
                self.head.bias,
                self.logit_map,
                self.sketch,
                self.validation,
                self.spec.exact_norm,
            )

    def _hidden(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        mask = None if bool((lengths == tokens.shape[1]).all()) else (steps < lengths.unsqueeze(1)).long()
        return self.base(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state

    def _probe(self) -> None:
        """Hold the head as we see it against the model's own logits, and padded rows against unpadded ones."""
        vocab = min(self.head.weight.shape[0], self.model.get_input_embeddings().weight.shape[0])
        steps = min(8, self.spec.max_positions)
        tokens = (torch.arange(2 * steps).view(2, steps) * 7919 + 3) % vocab
        tokens = tokens.to(self.spec.device)
        tolerance = 1e-4 if self.spec.dtype == "float32" else 5e-2
        with torch.inference_mode():
            full = torch.tensor([steps, steps], device=self.spec.device)
            hidden = self._hidden(tokens, full)
            theirs = self.model(input_ids=tokens, use_cache=False).logits.float()
            a = torch.nn.functional.linear(hidden, self.head.weight, self.head.bias).float()
            ours = self.logit_map.apply_(a)
            if ours.shape != theirs.shape or not _close(ours, theirs, tolerance):
                raise UsageError(
                    f"--model {self.spec.source}: the logits of {self.name} are not its LM head's output through "
                    "a scale and a soft-cap that its configuration names: head gradients would be wrong; not supported"
                )
            if steps > 2:
                lengths = torch.tensor([steps, steps // 2], device=self.spec.device)
                padded = self._hidden(tokens, lengths)[1, : steps // 2].float()
                if not _close(padded, hidden[1, : steps // 2].float(), tolerance):
                    raise UsageError(
                        f"--model {self.spec.source}: in {self.name} a token sees what comes after it or padding "
                        "changes it; a causal LM is needed"
                    )


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
    head = _linear_head(model, path)
    logit_map = _logit_map(config)
    return {
        "class": type(model).__name__,
        "vocab_size": head.weight.shape[0],
        "hidden_size": head.weight.shape[1],
        "embedding_rows": model.get_input_embeddings().weight.shape[0],
        "parameters": sum(p.numel() for p in model.parameters()),
        "head": {
            "tied": bool(getattr(_text_config(config), "tie_word_embeddings", False)),
            "bias": head.bias is not None,
            "scale": logit_map.scale,
            "softcap": logit_map.softcap,
        },
    }


def _linear_head(model: Any, source: str) -> torch.nn.Linear:
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        raise UsageError(
            f"--model {source}: {type(model).__name__} has no plain linear LM head (it has {type(head).__name__}), "
            "so its head gradient is not defined; use a causal LM"
        )
    return head


def _load(spec: ModelSpec, path: str) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            path,
            output_loading_info=True,
            dtype=DTYPES[spec.dtype],
            trust_remote_code=spec.trust_remote_code,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except Exception as error:  # a foreign configuration and foreign code may raise anything
        raise UsageError(f"--model {spec.source}: can't be loaded as a causal LM ({first_line(error)})") from error
    check_weights(spec.source, model, found)
    return model.eval().requires_grad_(False).to(spec.device)


def _text_config(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _max_positions(config: Any) -> int | None:
    config = _text_config(config)
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def max_positions(path: str, trust_remote_code: bool = False) -> int | None:
    """Positions that the model's configuration allows, or None where it does not say."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # a foreign configuration and foreign code may raise anything
        raise UsageError(f"--model {path}: config.json can't be understood ({first_line(error)})") from error
    return _max_positions(config)


def _logit_map(config: Any) -> LogitMap:
    config = _text_config(config)
    scale = 1.0
    for name in _SCALES:
        scale *= _number(config, name) or 1.0
    for name in _DIVISORS:
        scale /= _number(config, name) or 1.0
    return LogitMap(scale, next((cap for name in _SOFTCAPS if (cap := _number(config, name))), None))


def _number(config: Any, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _close(left: torch.Tensor, right: torch.Tensor, tolerance: float) -> bool:
    """Largest difference against the largest value; NaN is never close."""
    return bool((left - right).abs().max() <= tolerance * right.abs().max().clamp_min(1e-6))
