"""Token ids of chosen windows: those that were embedded, cut from the ids of the whole document.

A window that is tokenised by itself may become other ids, as tokens join across its ends.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cptsel.pipeline.artifacts.manifest import Manifest
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.exports.base import Vocabulary


@dataclass(frozen=True)
class TokenIds:
    """How the documents of a manifest's corpus were tokenised.

    Attributes:
        tokenizer: folder or hub id.
        split_special_tokens: as ``embed`` took it.
        vocabulary: of the tokenizer.
    """

    tokenizer: str
    split_special_tokens: bool
    vocabulary: Vocabulary

    def of_documents(self, texts: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[int], list[tuple[int, int]]]]:
        """Row, token ids and their offsets in code points, of whole documents."""
        from cptsel.pipeline.model.tokenizer import encode

        return encode(_load(self.tokenizer), texts, self.split_special_tokens)


def window_ids(row: dict[str, Any], ids: list[int], offsets: list[tuple[int, int]], uri: str) -> list[int]:
    """Ids of one window of a document.

    Raises:
        VerificationError: the tokens are not where the manifest has them.
    """
    first, end = row["token_start"], row["token_start"] + row["token_count"]
    inside = offsets[first:end]
    if end > len(ids) or inside[0][0] < row["char_start"] or inside[-1][1] > row["char_end"]:
        raise VerificationError(
            f"{uri}: row {row['row_index']} becomes other tokens than those that were embedded; "
            "run cptsel verify on the manifest, and install the version of tokenizers that embedded it"
        )
    return ids[first:end]


def token_ids(manifest: Manifest, tokenizer: str | None) -> TokenIds:
    """How to tokenise the corpus of a manifest, with the tokenizer it names by fingerprint.

    Raises:
        UsageError: the tokenizer can't be had, or is another.
    """
    from cptsel.pipeline.model.tokenizer import tokenizer_fingerprint

    source = tokenizer or manifest.header["provenance"]["model"].get("source")
    if source is None:
        raise UsageError(f"{manifest.directory} does not say where its model lies; name its tokenizer by --tokenizer")
    if os.path.isabs(source) and not os.path.isdir(source):
        where = f"--tokenizer {source}" if tokenizer else f"the model that embedded the corpus lay in {source}, which"
        raise UsageError(f"{where} is not there; name a folder with its tokenizer by --tokenizer")
    loaded = _load(source)
    if tokenizer_fingerprint(loaded) != manifest.header["corpus"]["tokenizer"]:
        raise UsageError(
            f"--tokenizer {source}: not the tokenizer that the corpus was embedded with (its fingerprint differs); "
            "name the folder of that model"
        )
    vocabulary = Vocabulary(len(loaded), loaded.eos_token_id)
    return TokenIds(source, manifest.header["corpus"].get("split_special_tokens", False), vocabulary)


@lru_cache(maxsize=1)
def _load(source: str) -> Any:
    from cptsel.pipeline.model.tokenizer import load_tokenizer

    return load_tokenizer(source, option="--tokenizer")
