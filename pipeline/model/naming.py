"""Finding a model and naming it by fingerprints, without loading its weights."""

import hashlib
import json
import os

import torch

from cptsel.pipeline.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]


def local_path(model: str, revision: str | None, option: str = "--model") -> str:
    """The folder of a model: the path itself, or the hub snapshot of an id, safetensors and tokenizer files only.

    ``option`` is what named it.

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
                f"{option} {model}: not a local folder, and the hub does not give it ({reason}); "
                "check the spelling or download it first"
            ) from error
    if not os.path.isfile(os.path.join(path, "config.json")):
        raise UsageError(f"{option} {model}: no config.json there; point at a folder that save_pretrained wrote")
    if not weight_files(path):
        raise UsageError(
            f"{option} {model}: no model.safetensors (nor an index of several) there; weights load from safetensors "
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
    if here and not has_device(device):
        raise UsageError(f"--device {device}: this machine has no usable GPU; use --device cpu")
    return device


def has_device(device: str) -> bool:
    """Whether this machine has the device, as ``resolve_device`` names it."""
    return device.split(":")[0] != "cuda" or torch.cuda.is_available()


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
