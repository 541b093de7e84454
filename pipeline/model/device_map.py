"""Models that are larger than one device: which part of it runs where, by accelerate (``device_map`` of transformers).

Parts lie on GPUs, or in the memory of the host or on disk, from where each comes to a GPU when its turn is.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cptsel.pipeline.errors import UsageError

if TYPE_CHECKING:  # options are read without it
    import torch

DeviceMap = str | tuple[tuple[str, int | str], ...]
"""``auto``, or names of modules with a GPU's number or the name of a device, ``cpu`` and ``disk`` among them."""


def parse_device_map(text: str) -> DeviceMap:
    """What ``--device-map`` says: ``auto``, or a JSON file, whose parts are sorted by name.

    Raises:
        ValueError: it is neither.
    """
    if text == "auto":
        return text
    try:
        with open(text, encoding="utf-8") as handle:
            parts = json.load(handle)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"{text} is neither auto nor a JSON file that can be read ({reason}); check the path"
        ) from error
    except ValueError as error:
        raise ValueError(f"{text} is neither auto nor a JSON file that can be read ({error}); mend the file") from error
    if not isinstance(parts, dict) or not parts or not all(type(place) in (int, str) for place in parts.values()):
        raise ValueError(
            f'{text}: must be one JSON object of names of modules and their devices, such as {{"model.layers.0": 0}}'
        )
    for place in parts.values():
        if not re.fullmatch(r"\d+|cuda(:\d+)?|cpu|disk", str(place)):
            raise ValueError(f"{text}: {place!r} is no place for a part: give a GPU's number, cuda:0, cpu or disk")
    return tuple(sorted(parts.items()))


def device_of_map(parts: DeviceMap, here: bool) -> str:
    """The kind of device on which the model computes: ``auto``, ``cuda`` or ``cpu``.

    Args:
        parts: as parsed.
        here: whether the model will run on this machine, which must then have accelerate.

    Raises:
        UsageError: accelerate is not installed.
    """
    if here and importlib.util.find_spec("accelerate") is None:
        raise UsageError("--device-map: accelerate is not installed; install it: pip install 'cptsel[accelerate]'")
    if isinstance(parts, str):
        return parts
    return "cpu" if {place for _, place in parts} <= {"cpu", "disk"} else "cuda"


def offloaded(module: "torch.nn.Module") -> bool:
    """Whether a weight of the module itself lies elsewhere than on the device that computes with it."""
    return any(parameter.is_meta for parameter in module.parameters(recurse=False))


def weights_of(model: "torch.nn.Module") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Parameters by name, those that were offloaded among them; these are there until the next one is asked for."""
    for name, module in model.named_modules():
        if offloaded(module):
            from accelerate.utils import align_module_device

            with align_module_device(module):
                yield from module.named_parameters(name, recurse=False)
        else:
            yield from module.named_parameters(name, recurse=False)


def entry_of(model: Any) -> "torch.device":
    """The device on which the model's embeddings come out."""
    import torch

    embeddings = model.get_input_embeddings()
    with torch.inference_mode():
        out = embeddings(torch.zeros(1, 1, dtype=torch.int64))
    device: torch.device = out.device
    return device
