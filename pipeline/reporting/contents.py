"""What stands on the page, section by section, of one selection or two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cptsel.pipeline.reporting.charts import histogram, legend
from cptsel.pipeline.reporting.distributions import Series, bins_of
from cptsel.pipeline.reporting.examples import Examples
from cptsel.pipeline.reporting.facts import Facts, warnings_of
from cptsel.pipeline.reporting.html import Html, details, figure, join, percent, plain, table, tag
from cptsel.pipeline.reporting.map import OTHERS, PALETTE, Layout, Points
from cptsel.pipeline.reporting.page import Section
from cptsel.pipeline.reporting.population import Population
from cptsel.pipeline.reporting.sections import (
    asked,
    came_out,
    fit,
    mix,
    plays_as_chosen,
    provenance,
    quotes,
    shard_order,
    warning_list,
)
from cptsel.pipeline.reporting.texts import Texts, shorten
from cptsel.pipeline.summary import Table, counted, named

HOVER_BYTES = 110  # of a text on the map: 10,000 of them are what most of the page's data is
EXAMPLE_BYTES = 400

_DISTRIBUTIONS = (  # column of the picks, title, unit, of the population, whole numbers, divided by tokens
    ("weight", "Weight", "corpus tokens that a token stands for", None, False, False),
    ("repeat", "Plays", "of a sample in an epoch", None, True, False),
    ("n_tokens", "Length", "tokens", "n_tokens", True, False),
    ("loss", "Loss", "nats per token", "loss", False, False),
    ("rise", "Rise of loss along the new text", "nats per token", "rise", False, False),
    ("grad_norm", "Gradient norm", "per token", "grad_norm", False, True),
)


@dataclass(frozen=True, eq=False)
class Drawn:
    """The map: its points, how they were placed, and how many samples were chosen in all."""

    points: Points
    layout: Layout
    chosen: int


def sections_of(
    selections: Sequence[Facts],
    population: Population | None,
    drawn: Drawn | None,
    chosen: Sequence[Examples],
    left_out: Sequence[Examples],
    texts: Texts,
    differences: Sequence[Table],
    notes: Sequence[str],
) -> list[Section]:
    """All sections, in their order.

    Args:
        selections: one or two.
        population: what they were chosen from, None where that is not known.
        drawn: the map, None where there is none.
        chosen: examples of every selection; left_out: likewise, empty without a population.
        texts: of all of these.
        differences: tables that tell two selections apart.
        notes: warnings that are of neither selection alone.
    """
    order = _group_order(selections)
    most = max((max(s.corpus, s.chosen, s.played) for facts in selections for s in facts.shares), default=0.0)
    found = [
        Section(
            "summary",
            "What was asked, and what came out",
            join([warning_list(notes)]),
            tuple(join([asked(facts), came_out(facts), warning_list(warnings_of(facts))]) for facts in selections),
        )
    ]
    if differences:
        tables = [table(one.columns, one.rows, one.title) for one in differences]
        found.append(Section("differences", "Differences", tag("div", *tables, class_="tables")))
    bars = tuple(mix(facts, order, most) for facts in selections)
    plots = _distributions(selections, population)
    found += [
        Section("groups", "Groups before and after", _mix_words(selections), bars),
        Section("distributions", "What the chosen samples are like", _distribution_words(population), plots),
        Section("fit", "How well they stand for the corpus", tag("p", _FIT), tuple(fit(facts) for facts in selections)),
    ]
    if drawn is not None:
        found.append(Section("the-map", "Map", _map(drawn, [facts.name for facts in selections])))
    found.append(Section("order", "Order of files", Html(""), tuple(shard_order(facts) for facts in selections)))
    found.append(_examples(chosen, left_out, texts))
    found.append(Section("provenance", "Provenance", Html(""), tuple(provenance(facts) for facts in selections)))
    return found


_FIT = (
    "Shorter bars are better. A distance says how far samples of the corpus are, by their gradients, from the nearest "
    "chosen one. A residual says what the weighted sum of the chosen gradients misses of the corpus's, relative to its "
    "length. A method that optimises one of them need not be good at the other."
)


def _group_order(selections: Sequence[Facts]) -> list[str]:
    """Names of all groups by falling share of the corpus."""
    share: dict[str, float] = {}
    for facts in selections:
        for one in facts.shares:
            share.setdefault(one.name, one.corpus)
    return sorted(share, key=lambda name: (-share[name], name))


def _mix_words(selections: Sequence[Facts]) -> Html:
    """What the bars mean."""
    by = list(dict.fromkeys(facts.group_by for facts in selections))
    if len(by) == 1:
        words = [f"Groups are by {by[0]}." if by[0] else "The selection has no groups: all samples are one."]
    else:
        words = [
            f"Groups of {facts.name} are by {facts.group_by}."
            if facts.group_by
            else f"{facts.name} has no groups: all its samples are one."
            for facts in selections
        ]
        if None in by:
            words.append("With --run, both are shown by the same groups.")
    words.append("Bars are shares of tokens: of the corpus, and of what is chosen and replayed.")
    entries = [("corpus", "corpus"), ("chosen", "chosen"), ("played", "replayed")]
    if all(map(plays_as_chosen, selections)):
        entries = [("corpus", "corpus"), ("played", "chosen, and replayed")]
    return join([tag("p", " ".join(words)), legend(*entries)])


def _distribution_words(population: Population | None) -> Html:
    """Whose distributions they are."""
    if population is None:
        return tag("p", "Shares of the chosen samples, each counted once. With --run, the corpus is shown beside them.")
    sampled = int(population.column("sampled").sum())
    which = "all" if sampled == population.samples else f"a random {sampled:,} of the"
    words = (
        f"Shares of samples, each counted once: of the chosen ones, and of {which} {population.samples:,} samples that "
        "could be chosen, weighted so that they stand for the corpus."
    )
    return join([tag("p", words), legend(("corpus", "corpus"), ("chosen", "chosen"))])


def _distributions(selections: Sequence[Facts], population: Population | None) -> tuple[Html, ...]:
    """Histograms of every selection, with common axes."""
    plots: list[list[Html]] = [[] for _ in selections]
    for column, title, unit, of_population, whole, by_token in _DISTRIBUTIONS:
        corpus = _corpus_series(population, of_population, by_token)
        mine = [_chosen_series(facts, column, by_token) for facts in selections]
        bins = bins_of([one for one in (corpus, *mine) if one is not None], whole)
        for plot, series in zip(plots, mine, strict=True):
            if bins is not None and series is not None and len(series.values):
                both = [corpus, series] if corpus is not None else [series]
                plot.append(histogram(title, unit, both, bins))
    return tuple(tag("div", *found, class_="plots") for found in plots)


def _chosen_series(facts: Facts, column: str, by_token: bool) -> Series | None:
    values = facts.column(column)
    if values is None:
        return None
    if by_token:
        values = values / facts.picks["n_tokens"].to_numpy()
    return Series("chosen", "chosen", values, np.ones(len(values))).finite()


def _corpus_series(population: Population | None, column: str | None, by_token: bool) -> Series | None:
    if population is None or column is None or column not in population.rows.schema.names:
        return None
    sampled = population.column("sampled")
    values = population.column(column)[sampled].astype(np.float64)
    if by_token:
        values = values / population.column("n_tokens")[sampled]
    return Series("corpus", "corpus", values, 1.0 / population.column("pool_prob")[sampled]).finite()


def mark_names(names: Sequence[str]) -> list[str]:
    """What the marks of the map are called: left out, chosen by one selection, by the other, by both."""
    if len(names) < 2:
        return ["left out", "chosen"]
    return ["left out", f"chosen by {names[0]} alone", f"chosen by {names[1]} alone", "chosen by both"]


def map_facts(drawn: Drawn | None, names: Sequence[str]) -> dict[str, Any]:
    """What the page's script knows of the map."""
    figures = drawn.points.figures if drawn else {}
    digits = [{"name": name, "digits": 0 if x.dtype.kind in "iu" else 3} for name, x in figures.items()]
    return {"marks": mark_names([plain(name) for name in names]), "figures": digits}


def _map(drawn: Drawn, names: Sequence[str]) -> Html:
    """The map with what goes around it: words, boxes that hide groups, and room for what is encircled."""
    points, marks = drawn.points, mark_names(names)
    shapes = ("●", "◆", "■", "★")
    counts = np.bincount(points.mark, minlength=len(marks)).tolist()
    boxes = [
        _box("mark", number, f"{shapes[number]} {name} ({count:,})")
        for number, (name, count) in enumerate(zip(marks, counts, strict=True))
        if count
    ]
    colours: dict[int, list[str]] = {}
    for name, code in zip(points.group, points.code.tolist(), strict=True):
        colours.setdefault(code, []).append(name)
    groups = []
    for code in sorted(colours):
        members = sorted(set(colours[code]))
        label = named(members[0]) if len(members) == 1 else f"{len(members):,} others"
        groups.append(_box("group", code, label, PALETTE[code] if code < len(PALETTE) else OTHERS))
    picked = int((points.mark > 0).sum())
    which = "what was chosen" if picked == drawn.chosen else f"{picked:,} of the {drawn.chosen:,} that were chosen"
    shown = f"{counted(len(points.mark), 'sample')}: {which}, and a random part of the rest."
    how = (
        "Point at a sample to read it; drag to move. In the bar above the map, switch on the wheel to zoom, or take "
        "the lasso and encircle samples to list them below. The boxes hide marks and groups."
    )
    fieldsets = [
        tag("fieldset", tag("legend", "Marks"), *boxes),
        tag("fieldset", tag("legend", "Groups"), *groups),
    ]
    return join(
        [
            tag("p", f"{drawn.layout.words} {shown}"),
            tag("p", how, class_="note"),
            tag("div", *fieldsets, id="map-groups"),
            tag("div", id="map", role="img", aria_label=f"Map of {shown}"),
            Html("<noscript><p>The map needs JavaScript; all else on this page does not.</p></noscript>"),
            tag("div", id="map-note", hidden=True),
            tag("div", id="map-selection", aria_live="polite"),
        ]
    )


def _box(name: str, value: int, label: str, colour: str | None = None) -> Html:
    """A box that is ticked."""
    swatch = tag("i", style=f"background:{colour}", aria_hidden="true") if colour else None
    return tag("label", tag("input", type="checkbox", name=name, value=value, checked=True), swatch, tag("bdi", label))


def _examples(chosen: Sequence[Examples], left_out: Sequence[Examples], texts: Texts) -> Section:
    """Texts that were chosen, and that were not."""
    columns = []
    for number, mine in enumerate(chosen):
        parts = [_texts("Chosen", mine, texts)]
        if left_out:
            parts.append(_texts("Left out", left_out[number], texts))
        columns.append(tag("div", *parts, class_="quotes"))
    words = "Drawn at random within groups, and shortened; of the chosen ones also those with the largest weights."
    if not left_out:
        words += " With --run, texts that were left out are shown too."
    return Section("examples", "Examples", tag("p", words), tuple(columns))


def _texts(title: str, examples: Examples, texts: Texts) -> Html:
    shown = [
        (group, remark, shorten(texts.found[name], EXAMPLE_BYTES))
        for name, group, remark in zip(
            examples.rows["sample_id"].to_pylist(), examples.rows["group"].to_pylist(), examples.remarks, strict=True
        )
        if name in texts.found
    ]
    if not shown:
        return details(title, tag("p", "The texts are not available.", class_="note"))
    return details(f"{title}: {counted(len(shown), 'text')}", quotes(shown), open_=True)


def turned(one: Table, columns: Sequence[str], called: dict[str, str]) -> Table:
    """A table with its rows as columns.

    Args:
        one: the table.
        columns: what heads the new columns.
        called: its columns that become rows, and what they are called there.
    """
    places = [(one.columns.index(name), words) for name, words in called.items()]
    shown = [(place, words, percent if words.startswith(("share", "gain")) else figure) for place, words in places]
    rows = [[words, *(show(row[place]) for row in one.rows)] for place, words, show in shown]
    return Table(title=one.title, columns=list(columns), rows=rows)


def difference_tables(selections: Sequence[Facts]) -> list[Table]:
    """What two selections were asked for, where that differs, and shares of the groups that both know."""
    asked_for: list[dict[str, Any]] = []
    for facts in selections:
        header = facts.manifest.header
        selection, budget = header["selection"], header["selection"].get("budget")
        asked_for.append(
            {
                "method": selection["method"],
                "scope": selection.get("scope"),
                "budget": budget["requested"] if budget else None,
                "realisation": facts.manifest.realisation,
                "order": header["order"]["kind"],
                **selection["options"],
            }
        )
    names = list(dict.fromkeys(name for one in asked_for for name in one))
    rows = [
        [name, *(figure(one.get(name)) for one in asked_for)]
        for name in names
        if len({figure(one.get(name)) for one in asked_for}) > 1
    ]
    shares = [{share.name: share for share in facts.shares} for facts in selections]
    moved = [
        [name, *(percent(found[name].played if name in found else 0.0) for found in shares), _change(shares, name)]
        for name in _group_order(selections)[:20]
    ]
    labels = [facts.name for facts in selections]
    found = [Table(title="Options that differ", columns=["option", *labels], rows=rows)] if rows else []
    if len(moved) > 1 and len({facts.group_by for facts in selections}) == 1:
        columns = ["group", *labels, "change"]
        found.append(Table(title="Shares of the replay; the change is in percent points", columns=columns, rows=moved))
    return found


def _change(shares: Sequence[dict[str, Any]], name: str) -> str:
    """By how many percent points the second selection replays more of a group."""
    first, second = (found[name].played if name in found else 0.0 for found in shares)
    return f"{100 * (second - first):+.1f}"
