"""What is said of a vocabulary without its tokenizer; help pages read it, so nothing heavy is imported here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """What a file of token ids must know of the tokenizer.

    ``size`` is above all ids, and ``eos`` the one that ends a document. ``has_texts`` is False where ids are all that
    is known of documents.
    """

    size: int
    eos: int | None
    has_texts: bool = True
