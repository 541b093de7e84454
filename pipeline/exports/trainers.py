"""Trainers that read an export: what to paste into each, and what of a manifest reaches it."""

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Mix:
    """Replay beside a new corpus.

    Attributes:
        new: the corpus as the trainer is to read it, such as a path.
        fraction: share of training that is replay, in (0, 1), in the unit that the trainer mixes by.
    """

    new: str
    fraction: float


#: What a recipe shows where no new corpus was named.
EXAMPLE = Mix("/data/new", 0.05)


@dataclass(frozen=True)
class Blend:
    """A file that a trainer reads, and by which it mixes a dataset with the new corpus.

    Attributes:
        name: of the file, in the dataset's folder.
        language: of it, for Markdown.
        text: its content, with fields as in ``Trainer.recipe``.
        use: how the trainer is given it; a sentence, with the same fields.
    """

    name: str
    language: str
    text: str
    use: str


@dataclass(frozen=True)
class Trainer:
    """A trainer that reads a format.

    Attributes:
        name: as its makers write it.
        recipe: what to paste, in Markdown. Its fields are {folder}, the dataset's folder below EXPORT; {new}, the new
            corpus; {share} and {rest}, the shares of replay and of the new corpus.
        order: what becomes of the order of plays.
        weights: what becomes of weights.
        samples: what a play is there.
        repeats: what becomes of repeats.
        proved: distributions with which a test has read exports.
        blend: how it mixes, where a file of its own says so.
        needs: a field of plays without which the recipe does not apply, where exports of the format may lack it.
        draws: the recipe where weights are realised by draws, with the same fields; empty where it has none.
    """

    name: str
    recipe: str
    order: str
    weights: str
    samples: str = "text"
    repeats: str = "in the files"
    proved: tuple[str, ...] = ()
    blend: Blend | None = None
    needs: Literal["text", "input_ids"] | None = None
    draws: str = ""

    def section(self, folder: str, mix: Mix, known: bool = False) -> str:
        """The recipe and the blend, in Markdown.

        Args:
            folder: of the dataset, relative to the export.
            mix: with what it is mixed.
            known: whether the blend was written as a file.
        """
        text = fill(self.recipe, folder, mix)
        if self.blend is not None:
            lies = f"`EXPORT/{folder}/{self.blend.name}`" if known else f"a `{self.blend.name}` of your own"
            use = fill(self.blend.use, folder, mix).replace("{file}", lies)
            text += f"\n{use}\n\n```{self.blend.language}\n{fill(self.blend.text, folder, mix)}```\n"
        return text


def draws_recipe(module: str, read: str, row: str) -> str:
    """``Trainer.draws`` for a table in Python.

    Args:
        module: what is imported.
        read: the table.
        row: the play at ``place`` of ``rows``.
    """
    return f"""
```python
import numpy as np
{module}

rows = {read}
weight = np.asarray(rows["weight"], dtype=float)
rng = np.random.default_rng(SEED)  # another SEED for each epoch, the same on all ranks


def draws():  # plays without end: stop when the tokens of the phase are played
    while True:
        for place in rng.choice(len(weight), size=10_000, p=weight / weight.sum()).tolist():
            yield {row}
```

With n ranks, each takes every n-th of these plays, starting at its own number.
"""


def fill(template: str, folder: str, mix: Mix, export: str = "EXPORT") -> str:
    """A recipe or a blend with its fields filled in; ``export`` is what stands for the export's directory."""
    fields = {
        "{folder}": folder,
        "{new}": mix.new,
        "{share}": f"{mix.fraction:.12g}",
        "{rest}": f"{1 - mix.fraction:.12g}",
        "EXPORT": export,
    }
    return re.sub(r"\{(folder|new|share|rest)\}|EXPORT", lambda match: fields[match[0]], template)
