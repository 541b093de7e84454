"""CONSUMING.md: the page in every manifest that tells a training team how to read it."""

from importlib.resources import files
from string import Template
from typing import Any


def consuming_page(header: dict[str, Any]) -> str:
    """Fill ``schemas/CONSUMING.md`` with the figures of one manifest.

    Args:
        header: a whole ``manifest.json``.
    """
    template = Template((files("cptsel.schemas") / "CONSUMING.md").read_text(encoding="utf-8"))
    totals, order, corpus = header["totals"], header["order"], header["corpus"]
    if order["kind"] == "priority":
        ordered = f"by importance, for {order['epochs']} epoch(s) on {order['world_size']} rank(s)"
    else:
        ordered = "none drawn yet: corpus order (run `cptsel order` for one by importance and rank)"
    return template.substitute(
        manifest_id=header["manifest_id"],
        method=header["selection"]["method"],
        realisation=header["weighting"]["realisation"],
        samples=f"{totals['selected_samples']:,}",
        plays=f"{totals['plays']:,}",
        replay_tokens=f"{totals['replay_tokens']:,}",
        population_samples=f"{totals['population_samples']:,}",
        population_tokens=f"{totals['population_tokens']:,}",
        order=ordered,
        text_field=corpus["text_field"],
        max_tokens=corpus["max_tokens"],
        root=corpus["root"],
    )
