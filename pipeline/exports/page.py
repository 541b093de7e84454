"""``TRAINING.md``: what a training team does with an export."""

from importlib.resources import files
from string import Template

from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.datasets import recipe_folders
from cptsel.pipeline.exports.mixing import mixes_of
from cptsel.schemas.headers import ExportHeader

NAME = "TRAINING.md"

_NEARNESS = {
    "exact": "exact: the same samples, as often, in the same order",
    "shard-level": "shard-level: the same samples, as often; shards in the same order",
    "unordered": "unordered: the same samples, as often, in an order of the trainer's own",
    "expectation-only": "expectation-only: samples are drawn by their weights",
}


def training_page(format: ExportFormat, header: ExportHeader) -> str:
    """The page that belongs to ``export.json``."""
    folders, mixes = recipe_folders(format, header["files"]), mixes_of(header)
    mixed = "".join(
        f"| mixed in `{folder}` | {mix.fraction:.12g} of replay with `{mix.new}` |\n"
        for folder, mix in (mixes or {}).items()
    )
    return Template(files("cptsel.schemas").joinpath(NAME).read_text(encoding="utf-8")).substitute(
        to=header["to"],
        parent=header["parent"],
        lines=f"{header['totals']['lines']:,}",
        tokens=f"{header['totals']['tokens']:,}",
        realisation=header["realisation"],
        fidelity=_NEARNESS[header["fidelity"]],
        instructions=header["instructions"],
        lost="\n".join(f"- {sentence}" for sentence in header["loses"]),
        mixed=mixed,
        recipe=format.recipe(folders, mixes) if folders else "",
    )
