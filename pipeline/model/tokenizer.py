"""The model's tokenizer: loading it, naming it by a fingerprint, and what stands before every window."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline.errors import UsageError, first_line


@dataclass(frozen=True)
class Prefix:
    """What stands before every window: ``kind`` is "bos", "eos" or "none"."""

    kind: str
    ids: tuple[int, ...]


def load_tokenizer(path: str, trust_remote_code: bool = False) -> Any:
    """The model's fast tokenizer.

    Raises:
        UsageError: there is none, or it is a slow one, which can't say where its tokens lie in the text.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # a foreign configuration and foreign code may raise anything
        raise UsageError(f"--model {path}: its tokenizer can't be loaded ({first_line(error)})") from error
    if not tokenizer.is_fast:
        raise UsageError(f"--model {path}: {type(tokenizer).__name__} gives no offsets; a fast tokenizer is needed")
    tokenizer.model_max_length = int(1e30)  # whole documents are tokenised; windows are cut by us
    return tokenizer


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256, in hex, of the tokenizer's whole serialised form and its special tokens."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["truncation"] = backend["padding"] = None
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    return hashlib.sha256(json.dumps([backend, special], sort_keys=True).encode()).hexdigest()


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the special tokens, such as BOS; text that spells one becomes its id unless it is split."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added.union(tokenizer.all_special_ids))


def prefix_of(tokenizer: Any) -> Prefix:
    """BOS, else EOS, else nothing (then a window's first token is not predicted)."""
    if tokenizer.bos_token_id is not None:
        return Prefix("bos", (int(tokenizer.bos_token_id),))
    if tokenizer.eos_token_id is not None:
        return Prefix("eos", (int(tokenizer.eos_token_id),))
    return Prefix("none", ())
