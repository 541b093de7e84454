"""The model's tokenizer: loading it, naming it by a fingerprint, and what stands before every window."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from cptsel.pipeline.errors import UsageError, first_line
from cptsel.pipeline.model.configuration import special_of_config
from cptsel.pipeline.model.vocabulary import Vocabulary

AT_ONCE = 1 << 20  # code points of text handed to the tokenizer in one call: bounds the offsets in memory
_TRIED = 8  # tokens whose texts tell whether a tokenizer works

Named = TypeVar("Named")


@dataclass(frozen=True)
class Prefix:
    """What stands before every window: ``kind`` is "bos", "eos" or "none"."""

    kind: str
    ids: tuple[int, ...]


def load_tokenizer(path: str, trust_remote_code: bool = False, option: str = "--model") -> Any:
    """The model's fast tokenizer; ``option`` is what named it.

    Raises:
        UsageError: there is none, or it is a slow one, which can't say where its tokens lie in the text.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # a foreign configuration and foreign code may raise anything
        raise UsageError(
            f"{option} {path}: its tokenizer can't be loaded ({first_line(error)}); point at a folder that "
            "save_pretrained wrote"
        ) from error
    if not tokenizer.is_fast:
        raise UsageError(f"{option} {path}: {type(tokenizer).__name__} gives no offsets; a fast tokenizer is needed")
    tokenizer.model_max_length = int(1e30)  # whole documents are tokenised; windows are cut by us
    if (reason := why_broken(tokenizer)) is not None:
        raise UsageError(
            f"{option} {path}: its tokenizer fails on every text ({reason}); point at a folder that "
            "save_pretrained wrote"
        )
    return tokenizer


def find_tokenizer(path: str, trust_remote_code: bool, needed: bool) -> tuple[Any | None, Prefix, int | None]:
    """The tokenizer, what stands before every window, and the id that ends a document, or None.

    Where there is no tokenizer and none is needed, as in a corpus of token ids, the model's configuration says the ids.

    Raises:
        UsageError: there is no fast tokenizer, and one is needed.
    """
    try:
        tokenizer = load_tokenizer(path, trust_remote_code)
    except UsageError:
        if needed:
            raise
        bos, eos = special_of_config(path, trust_remote_code)
        return None, _prefix(bos, eos), eos
    return tokenizer, prefix_of(tokenizer), tokenizer.eos_token_id


class TokenizerError(Exception):
    """The tokenizer fails on a text; ``str()`` is the tokenizer's own line."""


Encoded = tuple[list[int], list[tuple[int, int]]]
"""Token ids of a text, and where each lies in it: first code point and end."""


def encode(
    tokenizer: Any, texts: Iterable[tuple[Named, str]], split_special_tokens: bool
) -> Iterator[tuple[Named, Encoded | TokenizerError]]:
    """Token ids and offsets of texts, each as a whole and without special tokens; a name goes with each.

    A text on which the tokenizer fails has the error in their place.

    Raises:
        RuntimeError: the tokenizer fails on every text, even those of its own tokens.
    """
    for group in _calls(texts):
        found = _encode_all(tokenizer, [text for _, text in group], split_special_tokens)
        failed = any(isinstance(one, TokenizerError) for one in found)
        if failed and (reason := why_broken(tokenizer)) is not None:
            raise RuntimeError(f"the tokenizer fails on every text: {reason}")
        yield from zip((name for name, _ in group), found, strict=True)


def _encode_all(tokenizer: Any, texts: list[str], split_special_tokens: bool) -> list[Encoded | TokenizerError]:
    """Encode some texts in one call, and if that fails each by itself."""
    try:
        encoded = tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            split_special_tokens=split_special_tokens,
            verbose=False,
        )
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizer's Rust is no Exception
        if len(texts) == 1:
            return [TokenizerError(first_line(error))]
        return [_encode_all(tokenizer, [text], split_special_tokens)[0] for text in texts]
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def why_broken(tokenizer: Any) -> str | None:
    """Why a tokenizer can encode nothing, in its own words; None if it can encode the text of a token of its own.

    Other texts say nothing of the tokenizer: one without a token for unknown words fails on all that hold any.
    """
    special = special_ids(tokenizer)
    own = islice((number for number in range(len(tokenizer)) if number not in special), _TRIED)
    found = _encode_all(tokenizer, [tokenizer.decode([number]) for number in own], False)
    errors = [one for one in found if isinstance(one, TokenizerError)]
    return str(errors[0]) if errors and len(errors) == len(found) else None


def _calls(texts: Iterable[tuple[Named, str]]) -> Iterator[list[tuple[Named, str]]]:
    group: list[tuple[Named, str]] = []
    size = 0
    for name, text in texts:
        group.append((name, text))
        size += len(text)
        if size >= AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


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


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """Of all ids that it makes: those of added tokens may leave a gap, which ``len(tokenizer)`` does not count."""
    return Vocabulary(1 + max(tokenizer.get_vocab().values()), tokenizer.eos_token_id)


def prefix_of(tokenizer: Any) -> Prefix:
    """BOS, else EOS, else nothing (then a window's first token is not predicted)."""
    return _prefix(tokenizer.bos_token_id, tokenizer.eos_token_id)


def _prefix(bos: int | None, eos: int | None) -> Prefix:
    if bos is not None:
        return Prefix("bos", (int(bos),))
    return Prefix("none", ()) if eos is None else Prefix("eos", (int(eos),))
