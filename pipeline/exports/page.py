"""The pages of an export: ``TRAINING.md``, what a training team does with it, code by which it reads the export, and
those by which others find it.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from cptsel.pipeline.exports import card, croissant
from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.datasets import recipe_folders
from cptsel.pipeline.exports.mixing import mixes_of
from cptsel.schemas.headers import ExportHeader

NAME = "TRAINING.md"
CODE = (
    "code"  # folder of files of the package; beside the data datasets would take one of the folder's name for a loader
)

_NEARNESS = {
    "exact": "exact: the same samples, equally often, in the same order",
    "shard-level": "shard-level: the same samples, equally often; shards in the same order",
    "unordered": "unordered: the same samples, equally often, in the trainer's own order",
    "expectation-only": "expectation-only: samples are drawn by weight",
}
_EACH_ONCE = "unordered: the same documents, but each once and whole"


def pages(format: ExportFormat, header: ExportHeader) -> dict[str, bytes]:
    """All that belong to ``export.json``, by name; those of a data set where it says what it is as one."""
    found = {NAME: training_page(format, header).encode()}
    for name in format.code:
        if name in header.get("code", ()):
            found[f"{CODE}/{name}"] = files("cptsel").joinpath(name).read_bytes()
    if "dataset" in header and format.media is not None:
        metadata = json.dumps(croissant.croissant(format, header), indent=2, ensure_ascii=False, allow_nan=False)
        found |= {
            card.NAME: card.dataset_card(format, header).encode(),
            croissant.NAME: metadata.encode() + b"\n",
        }
    return found


def _named(folders: Sequence[str]) -> str:
    """A few by name, of many the first and the last."""
    if len(folders) <= 4:
        return ", ".join(f"`{folder}`" for folder in folders)
    return f"{len(folders):,}, from `{folders[0]}` to `{folders[-1]}`"


def training_page(format: ExportFormat, header: ExportHeader) -> str:
    """The page that belongs to ``export.json``."""
    folders, mixes = recipe_folders(format, header["files"]), mixes_of(header)
    fields = header["dataset"]["fields"] if "dataset" in header else None
    mixed = "".join(
        f"| mix for `{folder}` | {mix.fraction:.12g} replay, the rest from `{mix.new}` |\n"
        for folder, mix in (mixes or {}).items()
    )
    return Template(files("cptsel.schemas").joinpath(NAME).read_text(encoding="utf-8")).substitute(
        to=header["to"],
        parent=header["parent"],
        lines=f"{header['totals']['lines']:,}",
        tokens=f"{header['totals']['tokens']:,}",
        realisation=header["realisation"],
        fidelity=_EACH_ONCE if format.joins else _NEARNESS[header["fidelity"]],
        instructions=header["instructions"],
        lost="\n".join(f"- {sentence}" for sentence in header["loses"]),
        others=f"| data sets | {_named(folders)}; the recipes below name only the first |\n" if folders[1:] else "",
        mixed=mixed,
        recipe=format.recipe(folders, mixes, fields, draws=header["realisation"] == "sampling") if folders else "",
    )
