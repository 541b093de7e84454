"""Write the table of docs/methods.md from the registry: ``python docs/generate_methods.py`` or ``make docs``."""

from pathlib import Path

from cptsel.pipeline.selection.methods import METHODS

PAGE = Path(__file__).with_name("methods.md")
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def page(text: str) -> str:
    """The page with its table made anew."""
    head, rest = text.split(BEGIN)
    rows = [
        f"| `{name}` | {method.family.title} | {method.summary} | {method.source} |" for name, method in METHODS.items()
    ]
    table = ["| method | family | what it does | source |", "| --- | --- | --- | --- |", *rows, ""]
    return head + BEGIN + "\n".join(table) + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
