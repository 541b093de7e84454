"""Which chosen samples count and how much, and how they are cut into units."""

import math

import pytest
from manifest_builder import build_replay

from cptsel.pipeline.artifacts.manifest import load_manifest, read_data_file
from cptsel.pipeline.chosen.units import ChosenSamples, plan_units
from cptsel.pipeline.kernels.sampling.weights import REQUIRED_FEATURES

FACTORS = {
    "repeat": lambda s: s["repeat"],
    "loss": lambda s: s["loss_weight"],
    "sampling": lambda s: s["weight"],
    "none": lambda s: 1.0,
}


def counted(built, weights, realisation):
    """{sample_id: what it counts}, summed over phases, without what counts nothing."""
    factor = {None: lambda s: 1.0, "mass": lambda s: s["weight"], "played": FACTORS[realisation]}[weights]
    found = {}
    for sample in built.samples:
        name = sample["sample_id"]
        found[name] = 1.0 if weights is None else found.get(name, 0.0) + factor(sample)
    return {name: value for name, value in found.items() if value > 0}


@pytest.fixture(scope="module", params=REQUIRED_FEATURES)
def built(request, tmp_path_factory):
    return build_replay(
        tmp_path_factory.mktemp("built"), shards=3, documents=8, phases=2, keep=0.8, realisation=request.param
    )


@pytest.mark.parametrize("weights", [None, "mass", "played"])
@pytest.mark.parametrize("unit_tokens", [1, 60, 10**9])
def test_units_hold_every_sample_that_counts_once(built, weights, unit_tokens):
    manifest = load_manifest(str(built.replay))
    chosen = ChosenSamples(manifest.realisation, weights)
    units = plan_units(manifest, chosen, None, unit_tokens)
    found, places = {}, []
    for unit in units:
        rows = [
            row
            for row in chosen.rows(read_data_file(unit.samples, unit.sha256))
            if unit.first <= row["row_index"] <= unit.last
        ]
        assert (len(rows), sum(row["n_tokens"] for row in rows)) == (unit.count, unit.tokens)
        assert not found.keys() & {row["sample_id"] for row in rows}
        found |= {row["sample_id"]: row["counts"] for row in rows}
        places += [(unit.shard["shard_id"], row["row_index"], row["token_start"]) for row in rows]
        # no unit is larger than it must be: without its last document it was too small
        last = sum(row["n_tokens"] for row in rows if row["row_index"] == unit.last)
        assert unit.tokens - last < unit_tokens
    expected = counted(built, weights, manifest.realisation)
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[name], expected[name]) for name in expected)
    assert places == sorted(places)
    assert len({unit.name for unit in units}) == len(units)
    documents = {(s["shard_id"], s["row_index"]) for s in built.samples if s["sample_id"] in expected}
    wanted = {1: len(documents), 10**9: len({shard for shard, _ in documents})}
    assert len(units) == wanted.get(unit_tokens, len(units))


def test_masses_add_up_to_those_of_the_phases(built):
    manifest = load_manifest(str(built.replay))
    chosen = ChosenSamples(manifest.realisation, "mass")
    units = plan_units(manifest, chosen, None, 100)
    rows = [
        row
        for path in {unit.samples: unit.sha256 for unit in units}.items()
        for row in chosen.rows(read_data_file(*path))
    ]
    targets = sum(group["target_mass"] for group in built.header["groups"])
    assert math.isclose(sum(row["counts"] * row["n_tokens"] for row in rows), targets)
