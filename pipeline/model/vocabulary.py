"""What is said of a vocabulary without its tokenizer; help pages read it, so nothing heavy is imported here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """What a file of token ids must know of the tokenizer: its size, and the id that ends a document."""

    size: int
    eos: int | None
