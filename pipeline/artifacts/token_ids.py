"""Token ids of chosen windows: those that were embedded, cut from the ids of the whole document.

A window that is tokenised by itself may become other ids, as tokens join across its ends. A corpus of token ids
has them as they are.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cptsel.pipeline.artifacts.manifest import Manifest
from cptsel.pipeline.artifacts.texts import Row
from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.model.vocabulary import Vocabulary

_OTHER_VERSION = "run cptsel verify on the manifest, and install the version of tokenizers that embedded it"


@dataclass(frozen=True)
class TokenIds:
    """How the documents of a manifest's corpus were tokenised.

    Attributes:
        tokenizer: folder or hub id; None for a corpus of token ids.
        split_special_tokens: as ``embed`` took it.
        vocabulary: of the tokenizer.
        trust_remote_code: whether Python code that comes with it may run.
    """

    tokenizer: str | None
    split_special_tokens: bool
    vocabulary: Vocabulary
    trust_remote_code: bool = False

    def of_windows(
        self, contents: Iterable[tuple[int, Content]], by_document: Mapping[int, list[Row]], uri: str
    ) -> Iterator[tuple[Row, list[int]]]:
        """Each row, and the ids of its window.

        Args:
            contents: row_index and content of whole documents, as ``checked_texts`` gives them.
            by_document: their rows.
            uri: of the shard, for the sentence.

        Raises:
            VerificationError: the tokenizer fails on a text, or its tokens are not where the manifest has them.
        """
        if self.tokenizer is None:
            for row_index, _ in contents:
                yield from ((row, row["content"].tolist()) for row in by_document[row_index])
            return
        from cptsel.pipeline.model.tokenizer import TokenizerError, encode

        texts = ((row_index, text) for row_index, text in contents if isinstance(text, str))
        tokenizer = _load(self.tokenizer, self.trust_remote_code)
        for row_index, encoded in encode(tokenizer, texts, self.split_special_tokens):
            if isinstance(encoded, TokenizerError):
                raise VerificationError(
                    f"{uri}: the tokenizer fails on row {row_index} ({encoded}), which was embedded; {_OTHER_VERSION}"
                )
            yield from ((row, _window_ids(row, *encoded, uri)) for row in by_document[row_index])


def _window_ids(row: Row, ids: list[int], offsets: list[tuple[int, int]], uri: str) -> list[int]:
    """Ids of one window of a document.

    Raises:
        VerificationError: the tokens are not where the manifest has them.
    """
    first, end = row["token_start"], row["token_start"] + row["token_count"]
    inside = offsets[first:end]
    if end > len(ids) or inside[0][0] < row["char_start"] or inside[-1][1] > row["char_end"]:
        raise VerificationError(
            f"{uri}: row {row['row_index']} becomes other tokens than those that were embedded; {_OTHER_VERSION}"
        )
    return ids[first:end]


def token_ids(
    manifest: Manifest, tokenizer: str | None, option: str = "--tokenizer", trust_remote_code: bool = False
) -> TokenIds:
    """How to tokenise the corpus of a manifest, with the tokenizer it names by fingerprint, where it has one of texts.

    Args:
        manifest: of the corpus.
        tokenizer: folder of its model; by default the one that the manifest records.
        option: what named the tokenizer, for the sentence.
        trust_remote_code: whether Python code that comes with it may run.

    Raises:
        UsageError: the tokenizer can't be had, or is another.
    """
    from cptsel.pipeline.model.tokenizer import tokenizer_fingerprint, vocabulary_of

    if of_ids := manifest.header["corpus"].get("tokens"):
        return TokenIds(None, False, Vocabulary(of_ids["vocabulary"], of_ids["eod"], has_texts=False))
    source = tokenizer or manifest.header["provenance"]["model"].get("source")
    if source is None:
        raise UsageError(f"{manifest.directory} does not say where its model lies; name its tokenizer by --tokenizer")
    if os.path.isabs(source) and not os.path.isdir(source):
        where = f"{option} {source}" if tokenizer else f"the model that embedded the corpus lay in {source}, which"
        raise UsageError(f"{where} is not there; name a folder with its tokenizer by {option}")
    loaded = _load(source, trust_remote_code, option)
    if tokenizer_fingerprint(loaded) != manifest.header["corpus"]["tokenizer"]:
        raise UsageError(
            f"{option} {source}: not the tokenizer that the corpus was embedded with (its fingerprint differs); "
            "name the folder of that model"
        )
    vocabulary = vocabulary_of(loaded)
    split = manifest.header["corpus"].get("split_special_tokens", False)
    return TokenIds(source, split, vocabulary, trust_remote_code)


@lru_cache(maxsize=2)  # that of the driver, and that of its workers where they are this process
def _load(source: str, trust_remote_code: bool = False, option: str = "--tokenizer") -> Any:
    from cptsel.pipeline.model.tokenizer import load_tokenizer

    return load_tokenizer(source, trust_remote_code, option)
