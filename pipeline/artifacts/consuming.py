"""CONSUMING.md: the page in every manifest that tells a training team how to read it."""

from importlib.resources import files
from string import Template

from cptsel.pipeline.summary import counted
from cptsel.schemas.headers import ManifestHeader

_BEFORE = {  # what stood before every window, as the manifest's provenance.model.bos has it
    "bos": "BOS stood before each window when it was embedded. Windows don't include it, and their first token counts.",
    "eos": "EOS stood before each window when it was embedded. Windows don't include it, and their first token counts.",
    "none": "Nothing stood before a window when it was embedded, so its first token does not count.",
}


def consuming_page(header: ManifestHeader) -> str:
    """Fill ``schemas/CONSUMING.md`` with the figures of one manifest.

    Args:
        header: a whole ``manifest.json``.
    """
    template = Template((files("cptsel.schemas") / "CONSUMING.md").read_text(encoding="utf-8"))
    totals, order = header["totals"], header["order"]
    corpus, weighting = header["corpus"], header["weighting"]
    kinds = list(dict.fromkeys(phase["order"] for phase in header["phases"]))
    if order["kind"] == "priority":
        epochs, ranks = counted(order["epochs"], "epoch"), counted(order["world_size"], "rank")
        ordered = f"a schedule of shards, by importance, for {epochs} on {ranks}"
    elif weighting["realisation"] == "sampling":
        ordered = "none: samples are drawn"
    else:
        ordered = f"no schedule; `order_rank` follows {', '.join(kinds).replace('corpus', 'the corpus')}"
    played = f"{counted(totals['plays'], 'play')}, {counted(totals['replay_tokens'], 'token')}"
    if weighting["realisation"] == "sampling":
        played = f"draws until {weighting['replay_tokens']['requested']:,} tokens are played"
    return template.substitute(
        manifest_id=header["manifest_id"],
        method=header["selection"]["method"],
        realisation=weighting["realisation"],
        features=", ".join(f"`{name}`" for name in header["required_features"]) or "none",
        phases=len(header["phases"]),
        samples=f"{totals['selected_samples']:,}",
        played=played,
        population_samples=f"{totals['population_samples']:,}",
        population=_population(totals["population_tokens"], totals["population_mass"]),
        before=_BEFORE.get(header["provenance"]["model"].get("bos", ""), ""),
        order=ordered,
        contents="token ids" if "tokens" in corpus else f"text in field `{corpus['text_field']}`",
        max_tokens=corpus["max_tokens"],
        root=corpus["root"],
    )


def _population(tokens: int, mass: float) -> str:
    """Of how many tokens samples were chosen, and how many these stand for if they are a pool."""
    if round(mass) == tokens:
        return f"the corpus has {tokens:,}"
    return f"the embedded pool has {tokens:,}, which stand for about {round(mass):,} of the corpus"
