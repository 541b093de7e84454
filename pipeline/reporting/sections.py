"""Sections about one selection, each as HTML; the page lays two selections beside each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cptsel.pipeline.artifacts.manifest import schedule_name
from cptsel.pipeline.reporting.charts import bar, share_bars
from cptsel.pipeline.reporting.facts import Facts
from cptsel.pipeline.reporting.html import Html, details, figure, group_name, join, paragraphs, percent, table, tag
from cptsel.pipeline.summary import counted, first_rows

GROUPS_SHOWN = 20
_ROWS_SHOWN = 500
_SHARDS_SHOWN = 15
_RANKS_SHOWN = 16
_EVEN = 0.001  # shares that differ by less are told once
_REALISED = {
    "none": "each chosen sample is played once; weights are for information",
    "repeat": "weights are rounded to whole numbers of plays",
    "loss": "the trainer multiplies losses by the weights",
    "sampling": "the trainer draws samples by their weights",
}
_MOVED = 1.15  # a share that grew or fell by more is told in words


def asked(facts: Facts) -> Html:
    """What was asked for, in sentences."""
    header = facts.manifest.header
    selection, totals, options = header["selection"], header["totals"], header["selection"]["options"]
    budget = selection.get("budget")
    amount = f"{budget['requested']} ({budget['amount']:,} {budget['unit']})" if budget else "some"
    said: list[object] = [
        f"Choose {amount} of {counted(totals['population_samples'], 'sample')} of the old corpus, for replay while the "
        "model learns something new. A sample is a stretch of "
        f"at most {counted(header['corpus']['max_tokens'], 'token')} of one document.",
        join(["Method: ", tag("b", selection["method"]), f", which {facts.method}." if facts.method else "."]),
    ]
    wishes = []
    group_by = options.get("group_by")
    if group_by:
        wishes.append(f"each group by {group_by} gets its own share")
    if options.get("mass") == "interference":
        wishes.append("samples count by how much the new text makes the model forget them")
    if len(header["phases"]) > 1:
        wishes.append(f"this is phase {facts.phase['phase']} of {len(header['phases'])}")
    wishes.append(_REALISED.get(facts.manifest.realisation, facts.manifest.realisation))
    wished = "; ".join(wishes)
    said.append(wished[0].upper() + wished[1:] + ".")
    return paragraphs(said)


def came_out(facts: Facts) -> Html:
    """What came out, in sentences and as large figures."""
    totals, phase, played = facts.manifest.header["totals"], facts.phase, facts.played
    share = phase["tokens"] / totals["population_tokens"] if totals["population_tokens"] else 0.0
    files = len(np.unique(facts.picks["shard_id"].to_numpy()))
    said: list[object] = [
        f"Chosen: {counted(phase['samples'], 'sample')} with {counted(phase['tokens'], 'token')}, {percent(share)} of "
        f"the {totals['population_tokens']:,} that could be chosen, from {files:,} of "
        f"{counted(totals.get('shards', files), 'file')}."
    ]
    mass = totals["population_mass"]
    if mass > 1.001 * totals["population_tokens"]:
        said.append(
            "The samples that could be chosen are a random part of the corpus, and stand for "
            f"{figure(float(round(mass)))} tokens."
        )
    said += _moved(facts)
    said += _against_random(facts)
    cards = {
        "samples chosen": phase["samples"],
        "tokens chosen": phase["tokens"],
        "of the tokens that could be chosen": percent(share),
        "tokens played in an epoch": played,
    }
    effective = phase.get("effective_tokens")
    if effective is not None and phase["tokens"] and facts.manifest.realisation != "none":
        cards["tokens that weights leave effective"] = percent(effective / phase["tokens"])
    if "gain_over_random" in facts.report:
        cards["nearer than random picks"] = percent(facts.report["gain_over_random"])
    return join([_cards(cards), paragraphs(said)])


def _cards(figures: dict[str, Any]) -> Html:
    cards = [tag("div", tag("dt", name), tag("dd", figure(value))) for name, value in figures.items()]
    return tag("dl", *cards, class_="cards")


def _moved(facts: Facts) -> list[object]:
    """Which groups the replay favours, and which it passes over."""
    known = [share for share in facts.shares if share.corpus > 0.005]
    if len(known) < 2:
        return []
    more = sorted((s for s in known if s.played > _MOVED * s.corpus), key=lambda s: -s.played / s.corpus)[:3]
    less = sorted((s for s in known if s.played < s.corpus / _MOVED), key=lambda s: s.played / s.corpus)[:3]
    said: list[object] = []
    for words, shares in (("Replayed more than their share of the corpus", more), ("Replayed less", less)):
        if shares:
            parts = [
                join(
                    [
                        tag("b", group_name(s.name)),
                        f" ({percent(s.played)} of the replay, {percent(s.corpus)} of the corpus)",
                    ]
                )
                for s in shares
            ]
            said.append(join([f"{words}: ", join(parts, ", "), "."]))
    return said or ["The replay has much the same mix of groups as the corpus."]


def _against_random(facts: Facts) -> list[object]:
    """What the choice gains over random picks, as far as it was measured."""
    said: list[object] = []
    report, phase = facts.report, facts.phase
    if "gain_over_random" in report:
        gain = report["gain_over_random"]
        words = f"{percent(abs(gain))} {'nearer' if gain >= 0 else 'farther'}"
        weighed = facts.manifest.header["selection"]["options"].get("mass") not in (None, "corpus")
        corpus = "Samples of the corpus, weighted by what they count," if weighed else "Samples of the corpus"
        said.append(
            f"{corpus} are on average {words} to the nearest chosen one than to the nearest of as many random picks."
        )
    mine, random = phase.get("validation_residual"), phase.get("random_validation_residual")
    if mine is not None and random is not None:
        words = "less than" if mine < random else "more than"
        said.append(
            f"Added up, the chosen gradients miss {percent(mine)} of the length of the corpus's gradient, on a sketch "
            f"that the choice never saw; that is {words} random picks, which miss {percent(random)} on average."
        )
        if facts.manifest.header["selection"]["method"] == "uniform":
            said.append("This choice is itself random, so the difference is chance.")
        elif mine > 1:
            said.append(
                "More than 100% means that the sum is no nearer to that gradient than zero is. Only methods "
                "that match gradients aim at this figure."
            )
    return said


def plays_as_chosen(facts: Facts) -> bool:
    """Whether groups have the same shares of what is played as of what is chosen, so that one bar tells both."""
    return all(abs(share.chosen - share.played) < _EVEN for share in facts.shares)


def mix(facts: Facts, order: Sequence[str], most: float) -> Html:
    """Groups before and after as bars.

    Args:
        facts: of the selection.
        order: names of all groups in the order of the page.
        most: the share of the longest bar.
    """
    by_name = {share.name: share for share in facts.shares}
    shown = [by_name[name] for name in order[:GROUPS_SHOWN] if name in by_name]
    even = plays_as_chosen(facts)
    rows = []
    for share in shown:
        entries = [("corpus", "of the corpus", share.corpus)]
        if even:
            entries.append(("played", "of the replay", share.played))
        else:
            entries += [("chosen", "of the chosen", share.chosen), ("played", "of the replay", share.played)]
        rows.append(share_bars(share.name, entries, most))
    others = len(order) - GROUPS_SHOWN
    wanted = any(share.target is not None for share in facts.shares)  # not where the choice knew other groups
    columns = ["group", "corpus", *(["target"] if wanted else []), "chosen", "replayed", "samples"]
    figures = [
        [
            group_name(s.name),
            percent(s.corpus),
            *([percent(s.target)] if wanted else []),
            percent(s.chosen),
            percent(s.played),
            s.samples,
        ]
        for s in facts.shares
    ]
    return join(
        [
            tag("table", tag("tbody", *rows), class_="mix"),
            tag("p", f"The table also has {counted(others, 'smaller group')}.", class_="note") if others > 0 else None,
            _unfolding("Figures", columns, figures),
        ]
    )


def _unfolding(title: str, columns: Sequence[str], rows: list[list[Any]]) -> Html:
    """A table that unfolds, of its first rows where there are very many."""
    shown = first_rows(title, list(columns), rows, _ROWS_SHOWN)
    return details(shown.title, table(shown.columns, shown.rows))


def fit(facts: Facts) -> Html:
    """Residuals and coverage beside those of random picks."""
    phase, report = facts.phase, facts.report
    pairs = [
        ("Mean distance to the nearest pick", report.get("mean_distance"), report.get("random_distance")),
        ("Residual on the sketch that was fitted", phase.get("residual"), phase.get("random_residual")),
        (
            "Residual on the validation sketch",
            phase.get("validation_residual"),
            phase.get("random_validation_residual"),
        ),
    ]
    known = [(name, mine, random) for name, mine, random in pairs if mine is not None and random is not None]
    if not known:
        return tag("p", "The manifest has no such figures: they were not measured.", class_="note")
    rows = []
    for name, mine, random in known:
        most = max(mine, random) or 1.0
        bars = [
            bar("chosen", mine / most, f"{figure(mine)} chosen"),
            bar("corpus", random / most, f"{figure(random)} random"),
        ]
        rows.append(tag("tr", tag("th", name, scope="row"), tag("td", *bars)))
    return join([tag("table", tag("tbody", *rows), class_="mix"), _fit_by_group(facts)])


def _fit_by_group(facts: Facts) -> Html | None:
    reports = facts.manifest.header["selection"].get("reports") or [] if facts.phase["phase"] == 0 else []
    by_group = {report.get("group"): report for report in reports}
    names = ["validation_residual", "random_validation_residual"]
    rows = []
    for group in facts.groups:
        report, found = by_group.get(group["group"], {}), dict(group)
        figures = [report.get("mean_distance"), report.get("random_distance"), *(found.get(name) for name in names)]
        if any(value is not None for value in figures):
            rows.append([group_name(group["group"]), *figures])
    if len(rows) < 2:
        return None
    columns = ["group", "mean distance", "of random picks", "residual on validation", "of random picks"]
    return _unfolding("By group", columns, rows)


def shard_order(facts: Facts) -> Html:
    """The order in which shards are played, where there is a schedule."""
    manifest, number = facts.manifest, facts.phase["phase"]
    order = manifest.header["order"]
    if order["kind"] != "priority" or (number, 0) not in manifest.schedule_files():
        how = facts.phase["order"]
        way = "in the order of the corpus" if how == "corpus" else f"by {how}"
        return tag(
            "p", f"There is no schedule: samples are played {way}. cptsel order makes one, for epochs and ranks."
        )
    said = [
        f"{counted(order.get('epochs', 1), 'epoch')} for {counted(order.get('world_size', 1), 'rank')} "
        f"(seed {order.get('seed', 0)}). Files with large gradients tend to come early, by priority sampling: "
        "from any first part of the order, totals of the whole can be estimated without bias."
    ]
    report = next((found for found in order.get("reports", []) if found.get("phase") == number), {})
    if "effective_shards" in report and "shards" in report:
        said.append(
            f"Priorities are as uneven as if {report['effective_shards']:,.1f} of the {report['shards']:,} shards had "
            "equal ones and the others none."
        )
    visits = manifest.table(schedule_name(number, 0)).sort_by("order")
    shards = manifest.shards()
    paths = dict(zip(shards["shard_id"].to_pylist(), shards["path"].to_pylist(), strict=True))
    first = visits.slice(0, _SHARDS_SHOWN).to_pylist()
    rows = [
        [
            row["order"] + 1,
            tag("bdi", paths.get(row["shard_id"], "?")),
            row["rank"],
            row["pass"],
            row["samples"],
            row["tokens"],
        ]
        for row in first
    ]
    title = f"The first {len(rows):,} of {counted(visits.num_rows, 'visit')} of epoch 0"
    columns = ["place", "file", "rank", "pass", "samples", "tokens"]
    return join([paragraphs(said), _ranks(visits, order.get("world_size", 1)), table(columns, rows, title)])


def _ranks(visits: Any, world_size: int) -> Html:
    """Tokens by rank as bars; a rank without a visit has none."""
    ranks, tokens = visits["rank"].to_numpy(), visits["tokens"].to_numpy().astype(np.float64)
    loads = np.bincount(ranks, tokens, minlength=world_size)
    most = float(loads.max()) if len(loads) else 0.0
    rows = [
        tag(
            "tr",
            tag("th", f"rank {rank}", scope="row"),
            tag("td", bar("played", load / (most or 1.0), f"{load:,.0f} tokens")),
        )
        for rank, load in enumerate(loads[:_RANKS_SHOWN].tolist())
    ]
    rest, note = loads[_RANKS_SHOWN:], None
    if len(rest):
        words = f"Each of {counted(len(rest), 'more rank')} has {rest.min():,.0f} to {rest.max():,.0f} tokens."
        note = tag("p", words, class_="note")
    return join([tag("table", tag("tbody", *rows), class_="mix"), note])


def provenance(facts: Facts) -> Html:
    """What the manifest was made from, and with."""
    header = facts.manifest.header
    source = header["provenance"]
    model = source["model"]
    rows: list[list[Any]] = [
        ["manifest_id", tag("code", header["manifest_id"])],
        ["parent", tag("code", header["parent"]) if header["parent"] else "none"],
        ["corpus", tag("code", header["corpus"]["root"])],
        [
            "model",
            f"{model.get('source', 'unknown')} ({model.get('class', 'unknown')}, {model.get('dtype', 'unknown')})",
        ],
        ["weights of the model", tag("code", model.get("weights", "unknown"))],
        ["made by", f"{source['tool']['name']} {source['tool']['version']}"],
        ["weights realised by", facts.manifest.realisation],
    ]
    for run in source["runs"]:
        rows.append(["embedding run", tag("code", run.get("run_id", run["fingerprint"]))])
    for name in source.get("history", []):
        rows.append(["earlier round", tag("code", name)])
    for name in source.get("new", []):
        rows.append(["run of the new domain", tag("code", name)])
    options = [
        [name, "–" if value is None else figure(value)]
        for name, value in sorted(header["selection"]["options"].items())
    ]
    packages = [[name, version] for name, version in sorted(source["packages"].items())]
    return join(
        [
            table(["what", "value"], rows),
            details("Options", table(["option", "value"], options)),
            details("Packages", table(["package", "version"], packages)) if packages else None,
        ]
    )


def quotes(examples: Sequence[tuple[str, str, str]]) -> Html:
    """Texts with a group and a remark each."""
    return join(
        tag("blockquote", tag("p", tag("bdi", text)), tag("p", group_name(group), f" · {remark}", class_="note"))
        for group, remark, text in examples
    )


def warning_list(warnings: Sequence[str]) -> Html | None:
    """Warnings, None where there are none."""
    if not warnings:
        return None
    items = [tag("li", warning[:1].upper() + warning[1:]) for warning in warnings]
    return tag("ul", *items, class_="warnings", aria_label="Warnings")
