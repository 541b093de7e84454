"""The frozen model: loading it, and proving that we see its LM head as it is.

Nothing is believed of a model class. At load a probe runs the whole model once and holds three things against it: that
the base model's output is what the head reads, that the logits are the head's output through a scale and a soft-cap
(docs/design.md, Head gradient), and that padding on the right changes nothing. What does not fit is refused by name.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cptsel.pipeline.errors import UsageError, first_line
from cptsel.pipeline.kernels.gradients.head import LMHead, head_losses
from cptsel.pipeline.kernels.gradients.transfer import to_device
from cptsel.pipeline.model.configuration import linear_head, logit_map_of, positions_of
from cptsel.pipeline.model.device_map import DeviceMap, entry_of, offloaded
from cptsel.pipeline.model.fit import check_dtype, check_weights
from cptsel.pipeline.model.naming import DTYPES, local_path, resolve_device, weights_fingerprint


@dataclass(frozen=True)
class ModelSpec:
    """What a worker needs to load the model that the driver looked at, and to take its gradients.

    What is below ``max_positions`` is of gradients alone; what embeds gives it.
    ``gradient`` is a key of ``gradients.registry.GRADIENTS``; ``modules`` a glob that narrows the layers of the body;
    ``mixing`` the factors of head and body where both are taken; ``base`` source and revision of the model that this
    one was before a lookahead, where its losses are wanted too; ``device_map`` where its parts are, if not all
    of it is on ``device``. Where workers are on other machines, which may have another model under the same path,
    ``held`` is the fingerprint of the weights of each source, and ``tokenizer`` that of the tokenizer.
    """

    source: str
    revision: str | None
    device: str
    dtype: str
    trust_remote_code: bool
    threads: int
    max_positions: int
    seed: int = 0
    sketch_dim: int = 1
    validation_dim: int = 1
    exact_norm: bool = False
    gradient: str = "head"
    modules: str | None = None
    mixing: tuple[float, float] | None = None
    base: tuple[str, str | None] | None = None
    device_map: DeviceMap | None = None
    held: tuple[tuple[str, str], ...] = ()
    tokenizer: str | None = None


class FrozenModel:
    """A causal LM in evaluation mode; made by workers, once a process."""

    def __init__(self, spec: ModelSpec):
        """Load and probe. Raises UsageError naming what cptsel can't handle in this model."""
        self.spec = spec
        resolve_device(spec.device)
        self.path = _path(spec)
        torch.set_num_threads(spec.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        check_dtype(spec.dtype, spec.device)
        self.model = _load(spec, self.path)
        self.name = type(self.model).__name__
        linear = linear_head(self.model, spec.source)
        self.head = LMHead(linear.weight, linear.bias, logit_map_of(self.model.config))
        self.entry = torch.device(spec.device)
        if spec.device_map is not None:
            self._place(linear)
        self.base = self.model.base_model
        if self.base is self.model:
            raise UsageError(f"--model {spec.source}: {self.name} has no base model apart from its head")
        limit = positions_of(self.model.config)
        if limit is not None and spec.max_positions > limit:
            raise UsageError(f"--max-tokens: {spec.max_positions} positions are needed, but {self.name} has {limit}")
        self._probe()

    def hidden(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """What the head reads: (B, T, d) from token ids (B, T), padded on the right, of lengths (B,) on the host."""
        steps = torch.arange(tokens.shape[1], device=lengths.device)
        mask = None
        if not bool((lengths == tokens.shape[1]).all()):
            mask = to_device((steps < lengths.unsqueeze(1)).long(), self.entry)
        out = self.base(input_ids=tokens.to(self.entry), attention_mask=mask, use_cache=False)
        return out.last_hidden_state.to(self.spec.device)

    def pad(self, ids: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of windows, each the prefix and its own token ids, at least two together.

        Returns:
            Tokens (B, T + 1) int64, zeros behind each row's, on the model's device; and how many of each row are
            predicted, (B,) int64, on the host, where they can be asked without waiting for a GPU.
        """
        lengths = torch.tensor([len(row) - 1 for row in ids])
        tokens = torch.zeros(len(ids), int(lengths.max()) + 1, dtype=torch.int64)
        for i, row in enumerate(ids):
            tokens[i, : len(row)] = torch.as_tensor(row, dtype=torch.int64)
        return to_device(tokens, self.spec.device), lengths

    def losses(self, ids: Sequence[np.ndarray]) -> torch.Tensor:
        """Losses of one batch, (B,) float32 in nats, summed over each window's predicted tokens; ``ids`` as of pad."""
        tokens, lengths = self.pad(ids)
        with torch.inference_mode():
            hidden = self.hidden(tokens[:, :-1], lengths)
            return head_losses(hidden, tokens[:, 1:], lengths, self.head)

    def _place(self, linear: torch.nn.Module) -> None:
        """Take tokens, labels and tables to the head's device, where all but the model's own layers is computed."""
        if offloaded(linear):
            raise UsageError(
                f"--device-map: the LM head of {self.name}, which its embeddings may share, lies outside the device "
                "that computes with it, and gradients need it there; give a map that puts lm_head on a device"
            )
        self.spec = replace(self.spec, device=str(self.head.weight.device))
        self.entry = entry_of(self.model)

    def _probe(self) -> None:
        """Hold the head as we see it against the model's own logits, and padded rows against unpadded ones."""
        vocab = min(self.head.weight.shape[0], self.model.get_input_embeddings().weight.shape[0])
        steps = min(8, self.spec.max_positions)
        tokens = (torch.arange(2 * steps).view(2, steps) * 7919 + 3) % vocab
        tokens = tokens.to(self.spec.device)
        tolerance = 1e-4 if self.spec.dtype == "float32" else 5e-2
        with torch.inference_mode():
            full = torch.tensor([steps, steps])
            hidden = self.hidden(tokens, full)
            theirs = self.model(input_ids=tokens, use_cache=False).logits.float()
            ours = self.head.logits(hidden)
            if ours.shape != theirs.shape or not _close(ours, theirs, tolerance):
                raise UsageError(
                    f"--model {self.spec.source}: the logits of {self.name} are not its LM head's output through "
                    "a scale and a soft-cap that its configuration names: head gradients would be wrong; not supported"
                )
            if steps > 2:
                lengths = torch.tensor([steps, steps // 2])
                padded = self.hidden(tokens, lengths)[1, : steps // 2].float()
                if not _close(padded, hidden[1, : steps // 2].float(), tolerance):
                    raise UsageError(
                        f"--model {self.spec.source}: in {self.name} a token sees what comes after it or padding "
                        "changes it; a causal LM is needed"
                    )


def _path(spec: ModelSpec) -> str:
    """The folder of the model, which is the one that the command looked at."""
    expected = dict(spec.held).get(spec.source)
    try:
        path = local_path(spec.source, spec.revision)
    except UsageError as error:
        raise error if expected is None else UsageError(f"{error} (on a worker, {socket.gethostname()})") from error
    if expected is not None and weights_fingerprint(path, spec.trust_remote_code) != expected:
        raise another_model(spec.source, "its weights differ")
    return path


def another_model(source: str, what: str) -> UsageError:
    """The error of a worker that finds another model than the command."""
    return UsageError(
        f"--model {source}: a worker on {socket.gethostname()} has another model there than the machine that gives the "
        f"command ({what}); give both the same files"
    )


def _load(spec: ModelSpec, path: str) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    parts = spec.device_map
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            path,
            output_loading_info=True,
            dtype=DTYPES[spec.dtype],
            trust_remote_code=spec.trust_remote_code,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **({} if parts is None else {"device_map": parts if isinstance(parts, str) else dict(parts)}),
        )
    except Exception as error:  # a foreign configuration and foreign code may raise anything
        raise UsageError(f"--model {spec.source}: can't be loaded as a causal LM ({first_line(error)})") from error
    check_weights(spec.source, model, found)
    model = model.eval().requires_grad_(False)
    return model if parts is not None else model.to(spec.device)


def _close(left: torch.Tensor, right: torch.Tensor, tolerance: float) -> bool:
    """Largest difference against the largest value; NaN is never close."""
    return bool((left - right).abs().max() <= tolerance * right.abs().max().clamp_min(1e-6))
