"""Gradients with respect to the linear layers below the head, by one backward pass (docs/design.md, Body gradient)."""

import fnmatch
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.gradients.batch import BatchGradients
from cptsel.pipeline.kernels.gradients.head import head_backward
from cptsel.pipeline.kernels.gradients.matrix_sketch import R_VALIDATION, MatrixSketch, R
from cptsel.pipeline.model.device_map import offloaded
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.base import GradientKind

_AT_ONCE = 1 << 26  # numbers of gradients that the check holds at once


class BodyGradient(GradientKind):
    """Weights of all linear layers of the base model, or of those whose name matches; no biases, no norms."""

    name: ClassVar[str] = "body"

    def __init__(self, model: FrozenModel):
        super().__init__(model)
        spec = model.spec
        self.layers = linear_layers(model, spec.modules)
        for name, layer in self.layers.items():
            if offloaded(layer):
                raise UsageError(
                    f"--device-map: {name} of {model.name} lies outside the device that computes with it, and "
                    "gradients of the body need it there; give a map that puts it on a device, or use --gradient head"
                )
        self.tables = {name: self._tables(name, layer) for name, layer in self.layers.items()}
        self._check()

    def _tables(self, name: str, layer: torch.nn.Module) -> tuple[MatrixSketch, MatrixSketch]:
        """Of the sketch and of the validation sketch, on the layer's device."""
        spec, shape, device = self.model.spec, _shape(layer), str(_weight(layer).device)
        return (
            MatrixSketch.create(spec.seed, f"body/{name}", *shape, spec.sketch_dim, R, device),
            MatrixSketch.create(
                spec.seed, f"body/validation/{name}", *shape, spec.validation_dim, R_VALIDATION, device
            ),
        )

    def of_batch(self, tokens: torch.Tensor, lengths: torch.Tensor) -> BatchGradients:
        model, spec = self.model, self.model.spec
        taken = _Taken(self.tables, len(tokens), tokens.shape[1] - 1, spec.device, spec.exact_norm)
        with torch.enable_grad(), _hooked(model, self.layers, taken):
            hidden = model.hidden(tokens[:, :-1], lengths)
            with torch.no_grad():
                above, below = self._head(hidden.detach(), tokens[:, 1:], lengths)
            torch.autograd.backward(hidden, below)
        norm = taken.square.clamp_min(0.0).sqrt().float() if spec.exact_norm else None
        return self._joined(BatchGradients(taken.sketch, taken.validation, above.loss_sum, norm), above)

    def _head(
        self, hidden: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[BatchGradients, torch.Tensor]:
        """Losses, with what else is taken of the head, and the gradient of the hidden states (B, T, d)."""
        loss, below = head_backward(hidden, labels, lengths, self.model.head)
        nothing = torch.zeros(0, device=hidden.device)
        return BatchGradients(nothing, nothing, loss, None), below

    def _joined(self, body: BatchGradients, above: BatchGradients) -> BatchGradients:
        return body

    def _check(self) -> None:
        """Hold what is taken of two short rows against autograd, layer by layer.

        Raises:
            UsageError: a layer's gradient would be partial, missing or mixed between samples; it is named.
        """
        model = self.model
        steps = min(8, model.spec.max_positions)
        tokens = (torch.arange(2 * steps + 2).view(2, steps + 1) * 6367 + 5) % model.head.weight.shape[0]
        tokens = tokens.to(model.spec.device)
        lengths = torch.tensor([steps, max(1, steps - 2)])
        parts = _Parts(self.tables, 2, steps, model.spec.device)
        with torch.enable_grad(), _hooked(model, self.layers, parts):
            hidden = model.hidden(tokens[:, :-1], lengths)
            with torch.no_grad():
                _, below = head_backward(hidden.detach(), tokens[:, 1:], lengths, model.head)
            torch.autograd.backward(hidden, below)
        scale = max((float(part.norm(dim=1).max()) for part in parts.sketches.values()), default=0.0)
        tolerance = (1e-3 if model.spec.dtype == "float32" else 1e-1) * max(scale, 1e-30)
        for name, layer, sample, gradient in self._by_autograd(tokens, lengths):
            expected = self.tables[name][0].of_matrix(_as_matrix(layer, gradient.float()))
            found = parts.sketches.get(name)
            if found is None or not bool((found[sample] - expected).norm() <= tolerance):
                raise UsageError(
                    f"--model {model.spec.source}: the gradient of {name} can't be taken sample by sample: its weights "
                    "are shared, or it does not see every token once; leave it out by --modules, or use --gradient head"
                )

    def _by_autograd(
        self, tokens: torch.Tensor, lengths: torch.Tensor
    ) -> Iterator[tuple[str, torch.nn.Module, int, torch.Tensor]]:
        """Name, layer, sample and gradient, some layers at a time, from the model's own logits."""
        group: list[str] = []
        size = 0
        groups = [group]
        for name, layer in self.layers.items():
            numbers = _weight(layer).numel()
            if group and size + numbers > _AT_ONCE:
                group, size = [], 0
                groups.append(group)
            group.append(name)
            size += numbers
        for names in groups:
            weights = [_weight(self.layers[name]).requires_grad_(True) for name in names]
            try:
                for sample, length in enumerate(lengths.tolist()):
                    row = tokens[sample : sample + 1, : length + 1]
                    with torch.enable_grad():
                        logits = self.model.model(input_ids=row[:, :-1], use_cache=False).logits[0].float()
                        loss = torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum")
                        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                    for name, weight, gradient in zip(names, weights, gradients, strict=True):
                        yield (
                            name,
                            self.layers[name],
                            sample,
                            torch.zeros_like(weight) if gradient is None else gradient,
                        )
            finally:
                for weight in weights:
                    weight.requires_grad_(False)


def linear_layers(model: FrozenModel, pattern: str | None) -> dict[str, torch.nn.Module]:
    """The linear layers of the base model, by name.

    Args:
        model: the model.
        pattern: glob that their names match; None for all, which must then be all weight matrices but embeddings.

    Raises:
        UsageError: there is none, or a matrix belongs to no linear layer.
    """
    source = model.spec.source
    layers = {
        name: module
        for name, module in model.base.named_modules()
        if _is_linear(module) and fnmatch.fnmatchcase(name, pattern or "*")
    }
    if not layers:
        raise UsageError(
            f"--modules {pattern}: no linear layer of {model.name} has such a name; see model.named_modules()"
        )
    if pattern is None:
        known = {id(_weight(layer)) for layer in layers.values()}
        known |= {id(m.weight) for m in model.base.modules() if isinstance(m, torch.nn.Embedding)}
        for name, parameter in model.base.named_parameters():
            if parameter.ndim > 1 and id(parameter) not in known:
                raise UsageError(
                    f"--model {source}: {name} of {model.name} is a weight of no linear layer (such as experts that "
                    "share a tensor), so a gradient of the whole body can't be taken; take some layers by --modules, "
                    "such as '*attn*', or use --gradient head"
                )
    return layers


class _Taken:
    """Sums over layers, while a backward pass runs."""

    def __init__(
        self,
        tables: dict[str, tuple[MatrixSketch, MatrixSketch]],
        batch: int,
        steps: int,
        device: str,
        exact: bool = False,
    ):
        table, other = next(iter(tables.values()))
        self.tables, self.batch, self.steps, self.exact = tables, batch, steps, exact
        self.sketch = torch.zeros(batch, table.product.k, dtype=torch.float32, device=device)
        self.validation = torch.zeros(batch, other.product.k, dtype=torch.float32, device=device)
        self.square = torch.zeros(batch, dtype=torch.float64, device=device)

    def inputs(self, name: str, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What is kept of a layer's inputs until its output gradients come."""
        rows = self.rows(name, inputs)
        kept = tuple(table.fold_inputs(rows) for table in self.tables[name])
        return (*kept, rows.float()) if self.exact else kept

    def errors(self, name: str, kept: tuple[torch.Tensor, ...], errors: torch.Tensor) -> None:
        """Add a layer's part."""
        errors = self.rows(name, errors)
        table, other = self.tables[name]
        self.add(name, table.sketch(errors, kept[0]), other.sketch(errors, kept[1]))
        if self.exact:
            e, a = errors.float(), kept[2]
            square = ((e @ e.transpose(1, 2)) * (a @ a.transpose(1, 2))).sum(dim=(1, 2)).double()
            self.square += square.to(self.square.device)

    def add(self, name: str, sketch: torch.Tensor, validation: torch.Tensor) -> None:
        self.sketch += sketch.to(self.sketch.device)
        self.validation += validation.to(self.validation.device)

    def rows(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """(B, T, width) on the layer's device, also of a layer that sees the tokens of all samples in one row."""
        if values.numel() != self.batch * self.steps * values.shape[-1]:
            raise UsageError(
                f"the gradient of {name} can't be taken sample by sample: it does not see every token of every sample "
                "once; leave it out by --modules, or use --gradient head"
            )
        rows = values.detach().reshape(self.batch, self.steps, values.shape[-1])
        return rows.to(self.tables[name][0].product.take.device)


class _Parts(_Taken):
    """The same by layer, for the check."""

    def __init__(self, tables: dict[str, tuple[MatrixSketch, MatrixSketch]], batch: int, steps: int, device: str):
        super().__init__(tables, batch, steps, device)
        self.sketches: dict[str, torch.Tensor] = {}

    def add(self, name: str, sketch: torch.Tensor, validation: torch.Tensor) -> None:
        self.sketches[name] = self.sketches.get(name, 0) + sketch


@contextmanager
def _hooked(model: FrozenModel, layers: dict[str, torch.nn.Module], taken: _Taken) -> Iterator[None]:
    """Let gradients flow from the embeddings on, and hand inputs and output gradients of the layers to ``taken``."""

    def embedded(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        output.requires_grad_(True)

    def watch(name: str) -> Any:
        def forward(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if output.requires_grad:
                kept = taken.inputs(name, args[0])
                _on_gradient(output, lambda errors: taken.errors(name, kept, errors))

        return forward

    handles = [model.model.get_input_embeddings().register_forward_hook(embedded)]
    handles += [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _on_gradient(output: Any, then: Callable[[torch.Tensor], None]) -> None:
    output.register_hook(then)


def _is_linear(module: torch.nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)


def _weight(layer: torch.nn.Module) -> torch.Tensor:
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _as_matrix(layer: torch.nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """(out, in), whichever way round the layer stores it."""
    return weight if isinstance(layer, torch.nn.Linear) else weight.T


def _shape(layer: torch.nn.Module) -> tuple[int, int]:
    out_width, in_width = _as_matrix(layer, _weight(layer)).shape
    return out_width, in_width
