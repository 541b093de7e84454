"""``README.md``: an export as a data set of the Hugging Face hub. It follows from ``export.json`` alone."""

from importlib.resources import files
from string import Template
from typing import Any

import yaml

from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.croissant import FIELDS, SENSITIVE, collected, described, limits, name_of
from cptsel.pipeline.exports.media import parts
from cptsel.pipeline.summary import counted, named
from cptsel.schemas.headers import ExportHeader

NAME = "README.md"
_TEMPLATE = "DATASET_CARD.md"

_GROUPS_SHOWN = 50
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


def dataset_card(format: ExportFormat, header: ExportHeader) -> str:
    """The card that belongs to ``export.json`` of an export whose format has ``media``."""
    media, about = format.media, header["dataset"]
    assert media is not None
    configs = _configs(format, header) if media.loads else []
    front: dict[str, Any] = {
        "pretty_name": name_of(header),
        **({"license": about["license"]} if about["license"] is not None else {}),
        "task_categories": ["text-generation"],
        "size_categories": [_size(header["totals"]["lines"])],
        "tags": ["replay", "continual-pretraining"],
        **({"configs": configs} if configs else {"viewer": False}),
    }
    return Template(files("cptsel.schemas").joinpath(_TEMPLATE).read_text(encoding="utf-8")).substitute(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        name=name_of(header),
        description=described(header),
        collected=collected(about),
        to=header["to"],
        parent=header["parent"],
        lines=f"{header['totals']['lines']:,}",
        tokens=f"{header['totals']['tokens']:,}",
        instructions=header["instructions"],
        load=_load([config["config_name"] for config in configs]),
        fields="".join(f"| `{name}` | {FIELDS[name][1]} |\n" for name in about["fields"]),
        groups=_groups(header),
        limits="".join(f"- {sentence}\n" for sentence in [*limits(header), SENSITIVE]),
    )


def _configs(format: ExportFormat, header: ExportHeader) -> list[dict[str, Any]]:
    """All plays in order, and where there are several phases or epochs each by itself, as the hub's loader takes it."""
    found = parts(format, header["files"])
    whole = {"config_name": "default", "default": True}
    every = [{"split": "train", "path": [pattern for patterns in found.values() for pattern in patterns]}]
    each = [
        {"config_name": name, "data_files": [{"split": "train", "path": patterns}]} for name, patterns in found.items()
    ]
    return [{**whole, "data_files": every}, *(each if len(each) > 1 else [])] if found else []


def _load(names: list[str]) -> str:
    if not names:
        return "`TRAINING.md` says how trainers read it.\n"
    shown = ['replay = load_dataset("PATH", split="train")  # every play, in order']
    shown += [f'part = load_dataset("PATH", "{names[1]}", split="train")'] if names[1:] else []
    lines = "\n".join(["from datasets import load_dataset", "", *shown])
    head = "PATH is this folder, or its name on the hub. `TRAINING.md` says how trainers read it."
    return f"{head}\n\n```python\n{lines}\n```\n"


def _groups(header: ExportHeader) -> str:
    """Rows of the table of groups: what each is of the corpus, and of what the manifest plays in an epoch."""
    groups = header["dataset"]["groups"]
    mass, tokens = sum(group["mass"] for group in groups), sum(group["tokens"] for group in groups)
    largest = sorted(groups, key=lambda group: (-group["tokens"], group["group"]))
    rows = [
        f"| {_escaped(group['group'])} | {group['mass'] / (mass or 1):.2%} | {group['tokens'] / (tokens or 1):.2%} | "
        f"{group['tokens']:,} |\n"
        for group in largest[:_GROUPS_SHOWN]
    ]
    more = len(groups) - _GROUPS_SHOWN
    return "".join(rows) + (f"\nand {counted(more, 'group')} more\n" if more > 0 else "")


def _escaped(name: str) -> str:
    """A group's name as a cell of Markdown, which no name can leave or mark up; a blank one stands in quotes."""
    shown = named("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name))
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+-.!|~&$" else letter for letter in shown)


def _size(plays: int) -> str:
    """The hub's word for how many rows there are."""
    bounds = [1000 * 10**place for place in range(len(_SIZES))]
    above = sum(plays >= bound for bound in bounds)
    if above == 0:
        return f"n<{_SIZES[0]}"
    return f"n>{_SIZES[-1]}" if above == len(_SIZES) else f"{_SIZES[above - 1]}<n<{_SIZES[above]}"
