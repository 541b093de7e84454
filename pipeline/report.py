"""``cptsel report``: one HTML file that shows a selection, or two, and asks the network for nothing."""

import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import Manifest, load_manifest
from cptsel.pipeline.artifacts.origin import is_origin, open_origin_of_any
from cptsel.pipeline.artifacts.run import EmbeddingRuns
from cptsel.pipeline.artifacts.writing import check_apart
from cptsel.pipeline.config import check_read, check_values
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.threads import one_blas_thread
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.reporting.config import ReportConfig
from cptsel.pipeline.reporting.contents import (
    HOVER_BYTES,
    Drawn,
    difference_tables,
    map_facts,
    sections_of,
    turned,
)
from cptsel.pipeline.reporting.examples import LOCATOR, chosen_examples, left_out_examples
from cptsel.pipeline.reporting.facts import Facts, facts_of, numbered_as, read_picks, with_population
from cptsel.pipeline.reporting.html import Html, plain, tag
from cptsel.pipeline.reporting.map import PALETTE, Points, lay_out, map_item, need_bokeh
from cptsel.pipeline.reporting.overlap import (
    check_alike,
    overlap_table,
    overlaps_of,
    phase_of,
    population_warnings,
    selections_table,
    short_names,
    target_warnings,
)
from cptsel.pipeline.reporting.page import MARK, Section, whole_page
from cptsel.pipeline.reporting.points import check_points_file, points_table, write_points
from cptsel.pipeline.reporting.population import (
    Population,
    directions_of,
    read_population,
)
from cptsel.pipeline.reporting.texts import Texts, read_sample_texts, shorten
from cptsel.pipeline.results import ReportResult
from cptsel.pipeline.selection.methods import METHODS
from cptsel.pipeline.summary import Table
from cptsel.schemas.headers import PhaseEntry

_FIGURES = {  # of the table of compare, and what they are called on the page
    "method": "method",
    "samples": "samples",
    "tokens": "tokens",
    "played tokens": "tokens played in an epoch",
    "effective share": "share that weights leave effective",
    "residual": "residual on the sketch that was fitted",
    "on validation": "residual on the validation sketch",
    "of random picks": "residual of random picks on it",
    "coverage gain": "gain of coverage over random picks",
}


@one_blas_thread()
def report(config: ReportConfig, progress: Progress | None = None) -> ReportResult:
    """Write the report of a selection, or of two beside each other.

    Returns:
        The summary: what the file shows, and its bytes.

    Raises:
        UsageError: an option out of range, no manifest, manifests of different corpora, runs that they were not
            selected from, a phase that is not there, Bokeh is missing and needed, or an output that is in the way.
        VerificationError: a file of a manifest or a run is not what its checksum says.
        BadInputError: a file of embeddings is damaged.
    """
    check_values(config)
    check_read(config)
    if config.root is not None and not io.exists(config.root):
        raise UsageError(f"--root {config.root}: there is no such directory")
    if config.run:
        need_bokeh()
    manifests = [load_manifest(path) for path in (config.replay, config.other) if path is not None]
    for other in manifests[1:]:
        check_alike(manifests[0], other)
    phases = [phase_of(manifest, config.phase) for manifest in manifests]
    out, map_out = _outputs(config, [*(m.directory for m in manifests), *map(io.absolute, config.run)])
    own, runs = open_origin_of_any(manifests, config.run, config.phase) if config.run else (0, None)
    notes = _other_runs(manifests, runs, config) if runs else []
    notes += population_warnings(short_names([manifest.directory for manifest in manifests]), manifests)

    selections, population = _read_selections(config, manifests, phases, runs, own, progress)
    chosen = [chosen_examples(facts, config.seed) for facts in selections]
    left_out = [left_out_examples(population, n, config.seed) for n in range(len(chosen))] if population else []
    shown = _shown_rows(population, config.points)
    on_map = None if population is None else population.rows.take(pa.array(shown))
    told_of = [examples.rows for examples in (*chosen, *left_out)] + ([] if on_map is None else [on_map])
    texts = read_sample_texts(manifests[own], _distinct(told_of), config.root, progress)
    drawn = _draw(population, selections, shown, texts, config.seed, progress) if population else None
    differences, said = _differences(selections, config.phase, progress)
    notes += said + texts.warnings()

    sections = sections_of(selections, population, drawn, chosen, left_out, texts, differences, notes)
    data = _page(selections, sections, drawn)
    io.write_bytes(out, data)
    if map_out is not None and on_map is not None and drawn is not None:
        write_points(map_out, points_table(on_map, drawn.layout.xy, selections, texts.found))
    return ReportResult(
        out=out,
        status="done",
        selections=len(selections),
        chosen_samples=sum(facts.picks.num_rows for facts in selections),
        points=len(shown),
        texts=len(texts.found),
        bytes=len(data),
        map=map_out,
        warnings=notes,
    )


def _read_selections(
    config: ReportConfig,
    manifests: Sequence[Manifest],
    phases: Sequence[PhaseEntry],
    runs: EmbeddingRuns | None,
    own: int,
    progress: Progress | None,
) -> tuple[list[Facts], Population | None]:
    """Facts of every selection, and with runs what they were selected from, of which the facts then tell too.

    ``own`` is the selection of the runs: all picks have its numbers of shards.
    """
    names = short_names([manifest.directory for manifest in manifests])
    selections = [
        facts_of(name, manifest, phase, _method_words(manifest), numbered_as(picks, manifest, manifests[own]))
        for name, manifest, phase in zip(names, manifests, phases, strict=True)
        for picks in (read_picks(manifest, phase, progress),)
    ]
    if runs is None:
        return selections, None
    picks = [facts.picks for facts in selections]
    population = read_population(runs, selections[own].group_by, picks, config.points, config.seed, progress, own)
    return [with_population(facts, population, number) for number, facts in enumerate(selections)], population


def _outputs(config: ReportConfig, inputs: Sequence[str]) -> tuple[str, str | None]:
    """Absolute paths of the page and of the points, once both may be written."""
    out = io.absolute(config.out)
    _check_out(out, config.overwrite, inputs)
    if config.map is None:
        return out, None
    map_out = io.absolute(config.map)
    for source in inputs:
        check_apart(map_out, source)
    if map_out == out:
        raise UsageError(f"--map {config.map} is --out as well; name two files")
    check_points_file(map_out, config.overwrite)
    return out, map_out


def _page(selections: Sequence[Facts], sections: Sequence[Section], drawn: Drawn | None) -> bytes:
    """The whole file."""
    names = [facts.name for facts in selections]
    title = "Replay selection " + " and ".join(plain(name) for name in names)
    item = map_item(drawn.points) if drawn else None
    return whole_page(title, _lead(selections), sections, names, item, map_facts(drawn, names)).encode()


def _check_out(out: str, overwrite: bool, inputs: Sequence[str]) -> None:
    """Refuse an output that is an input's, a directory, or a file that no report is."""
    for source in inputs:
        check_apart(out, source)
    if not io.exists(out):
        return
    if not io.is_remote(out) and os.path.isdir(out):
        raise UsageError(f"--out {out} is a directory; name a file, such as {io.join(out, 'report.html')}")
    if not overwrite:
        raise UsageError(f"{out} exists; pass --overwrite or another --out")
    with io.open_read(out) as handle:
        head = handle.read(200)
    if MARK.encode() not in head:
        raise UsageError(f"{out} was not written by cptsel report; choose another --out")


def _other_runs(manifests: Sequence[Manifest], runs: EmbeddingRuns, config: ReportConfig) -> list[str]:
    """A warning where a selection was made from other runs of the corpus."""
    for manifest in manifests:
        phase = phase_of(manifest, config.phase)
        if not is_origin(manifest, phase, runs.headers):
            return [
                f"{manifest.directory} was selected from other embedding runs of this corpus; losses, and what can't "
                "be found among the samples of --run, are not its own"
            ]
    return []


def _method_words(manifest: Manifest) -> str:
    """What the method of a selection does, empty where this release does not know it."""
    method = METHODS.get(manifest.header["selection"]["method"])
    return method.summary if method else ""


def _shown_rows(population: Population | None, points: int) -> np.ndarray:
    """Rows of the population on the map: what was chosen first, then the random sample.

    Where more was chosen than the map holds, half of it is for a random part of what was chosen.
    """
    if population is None:
        return np.zeros(0, np.int64)
    marked = _marks(population) > 0
    picked, rest = np.flatnonzero(marked), np.flatnonzero(population.column("sampled") & ~marked)
    if len(picked) > points:
        picked = picked[: points // 2]
    return np.concatenate([picked, rest])[:points]


def _marks(population: Population) -> np.ndarray:
    """(n,) int: 1 where the first selection has picked a row, 2 where the second has, 3 where both have."""
    marks = population.chosen(0).astype(np.int64)
    return marks + 2 * population.chosen(1) if "chosen_1" in population.rows.schema.names else marks


def _distinct(tables: Sequence[pa.Table]) -> pa.Table:
    """Where the samples of several tables lie, each once, in their order."""
    rows = pa.concat_tables([table.select(LOCATOR) for table in tables], promote_options="permissive")
    _, first = np.unique(np.asarray(rows["sample_id"].to_pylist(), object), return_index=True)
    return rows.take(pa.array(np.sort(first), pa.int64()))


def _draw(
    population: Population,
    selections: Sequence[Facts],
    shown: np.ndarray,
    texts: Texts,
    seed: int,
    progress: Progress | None,
) -> Drawn:
    """Place the rows of the map, and say what is known of each."""
    rows = population.rows.take(pa.array(shown))
    layout = lay_out(directions_of(population, shown, progress), seed)
    largest = sorted(population.mass, key=lambda name: (-population.mass[name], name))
    code_of = {name: min(place, len(PALETTE)) for place, name in enumerate(largest)}
    groups = rows["group"].to_pylist()
    ids = rows["sample_id"].to_pylist()
    figures = {"tokens": rows["n_tokens"].to_numpy(), "loss": rows["loss"].to_numpy()}
    if "rise" in rows.schema.names:
        figures["rise"] = rows["rise"].to_numpy()
    for number, facts in enumerate(selections):
        plays = dict(zip(facts.picks["sample_id"].to_pylist(), facts.picks["repeat"].to_pylist(), strict=True))
        name = "plays" if len(selections) == 1 else ("plays of the first", "plays of the second")[number]
        figures[name] = np.array([plays.get(sample, 0) for sample in ids], np.int64)
    points = Points(
        xy=layout.xy,
        group=[plain(name) for name in groups],
        code=np.array([code_of[name] for name in groups], np.int64),
        mark=_marks(population)[shown],
        text=[shorten(texts.found[sample], HOVER_BYTES) if sample in texts.found else "" for sample in ids],
        figures=figures,
    )
    return Drawn(points, layout, int((_marks(population) > 0).sum()))


def _differences(selections: Sequence[Facts], phase: int, progress: Progress | None) -> tuple[list[Table], list[str]]:
    """Tables that tell two selections apart, and what to mind in them; none of one selection."""
    if len(selections) < 2:
        return [], []
    names, manifests, phases = (
        [facts.name for facts in selections],
        [facts.manifest for facts in selections],
        [facts.phase for facts in selections],
    )
    overlap = overlap_table(names, manifests, phases, [(0, 1)], overlaps_of(manifests, phase, [(0, 1)], progress))
    shared = {
        "samples in both": "samples in both",
        "by chance": "as many by chance",
        "Jaccard": "Jaccard index",
        "of its played tokens": f"share of what {names[0]} plays",
        "of the other's": f"share of what {names[1]} plays",
        "distance of masses": "distance of masses",
    }
    tables = [
        turned(selections_table(names, manifests, phases), ["figure", *names], _FIGURES),
        turned(overlap, ["figure", "both"], shared),
        *difference_tables(selections),
    ]
    return tables, target_warnings(names, phases)


def _lead(selections: Sequence[Facts]) -> Html:
    """The line below the heading."""
    parts = []
    for facts in selections:
        parts.append(f"{facts.manifest.header['selection']['method']}, manifest {facts.manifest.manifest_id[:16]}")
    return tag("p", "; ".join(parts), class_="sub")
