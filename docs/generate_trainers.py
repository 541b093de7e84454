"""Write docs/trainers.md, and its table in README.md, from the registry: ``python docs/generate_trainers.py``.

Versions are those that tests have read exports with: tests/trainers/proved.json, which tests/test_trainers.py writes,
and constraints.txt for what the project itself installs.
"""

import json
from pathlib import Path

from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.exports.trainers import EXAMPLE, Trainer, fill

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs/trainers.md", ROOT / "README.md"
TABLE = ("<!-- trainers: begin -->\n", "<!-- trainers: end -->\n")
SECTIONS = ("<!-- sections: begin -->\n", "<!-- sections: end -->\n")
HEADINGS = ("trainer", "`--to`", "samples", "repeats", "order", "weights", "proved by test on version")


def versions() -> dict[str, str]:
    """The version of each distribution that tests have read exports with."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return pinned | json.loads((ROOT / "tests/trainers/proved.json").read_text(encoding="utf-8"))


def table() -> str:
    """A row a trainer."""
    found = versions()

    def proof(trainer: Trainer) -> str:
        return ", ".join(f"{name} {found[name]}" for name in trainer.proved) or "untried"

    rows = [
        (trainer.name, f"`{name}`", trainer.samples, trainer.repeats, trainer.order, trainer.weights, proof(trainer))
        for name, format in EXPORTS.items()
        for trainer in format.trainers
    ]
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draws(trainer: Trainer) -> str:
    """What to do if weights are realised by draws."""
    return f"\nIf weights are realised by draws:\n{fill(trainer.draws, 'data', EXAMPLE)}" if trainer.draws else ""


def sections() -> str:
    """What to paste into each."""
    parts = [
        f"\n## {trainer.name}\n\n`--to {name}`: {format.summary}.\n{trainer.section('data', EXAMPLE)}{draws(trainer)}"
        for name, format in EXPORTS.items()
        for trainer in format.trainers
    ]
    return "".join(parts) + "\n"


def replaced(text: str, marks: tuple[str, str], made: str) -> str:
    """The text with what stands between two marks made anew."""
    head, rest = text.split(marks[0])
    return head + marks[0] + made + marks[1] + rest.split(marks[1])[1]


def page(text: str) -> str:
    """docs/trainers.md made anew."""
    return replaced(replaced(text, TABLE, table()), SECTIONS, sections())


def readme(text: str) -> str:
    """README.md with its table made anew."""
    return replaced(text, TABLE, table())


if __name__ == "__main__":
    for path, made in ((PAGE, page), (README, readme)):
        path.write_text(made(path.read_text(encoding="utf-8")), encoding="utf-8")
