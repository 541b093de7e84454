"""What ``verify`` says of an export that mixes replay with a new corpus."""

from pathlib import Path

import pytest
from export_checks import check, make, problems
from export_tampering import header_of, reseal_export
from manifest_builder import build_replay, recommending

from cptsel.pipeline import io
from cptsel.pipeline.exports.mixing import mixes_of, write_blends
from cptsel.pipeline.exports.registry import EXPORTS

pytestmark = pytest.mark.usefixtures("checks_without_beam")


@pytest.fixture(scope="module")
def phased(tmp_path_factory):
    """Two phases, with a share of replay each."""
    folder = tmp_path_factory.mktemp("phased")
    return recommending(build_replay(folder, shards=3, documents=4, phases=2), folder / "recommending", 0.1, 0.25)


MIXED = [to for to, format in EXPORTS.items() if format.mixes and format.writes_text and not format.refers]
BLENDED = [to for to, format in EXPORTS.items() if format.blends()]


def mixed(replay, out, to, **options):
    return make(replay, out, to, new_corpus="/EXPORT/new", **options)


def blends_of(out):
    return [out / name for name in header_of(out)["files"] if Path(name).name in EXPORTS[header_of(out)["to"]].blends()]


@pytest.mark.parametrize("to", MIXED)
@pytest.mark.parametrize("options", [{}, {"mix_fraction": 0.2}])
def test_mixes_pass(phased, tmp_path, to, options):
    out = mixed(phased, tmp_path / "out", to, **options)
    for replay in (None, phased):
        assert check(out, replay).status == "verified"


@pytest.mark.parametrize("to", BLENDED)
def test_a_blend_that_a_forger_changed_is_named(embedded, tmp_path, to):
    """It is held to the header, wherever the export lies now; the path in it is that of --out."""
    out = mixed(embedded.replay, tmp_path / "out", to, mix_fraction=0.125)
    out = out.rename(tmp_path / "moved")
    assert check(out, embedded.replay).status == "verified"
    (blend,) = blends_of(out)
    whole = blend.read_text()
    changes = [("0.875", "0.5"), ("/EXPORT/new", "/other"), (f"{tmp_path}/out", "out"), ("\n", "\n\n"), ("/data", "/x")]
    for old, new in changes:
        assert old in whole
        blend.write_text(whole.replace(old, new, 1))
        reseal_export(out)
        name = str(blend.relative_to(out))
        assert [list(found) for found in problems(out)] == [[name, None, "does not mix as export.json says"]]
    blend.write_bytes(whole.encode().replace(b"/out", b"/\xff", 1))
    reseal_export(out)
    assert "does not mix as" in problems(out)[0][2]
    blend.unlink()
    reseal_export(out)
    assert f"does not list {blend.relative_to(out)}" in [what for _, _, what in problems(out)]


def test_what_the_header_says_of_mixing_is_held_to_its_files(phased, embedded, copied, tmp_path):
    out = copied("mds")
    (out / "data/streams.yaml").write_text("streams: {}\n")
    reseal_export(out)
    assert "lists data/streams.yaml, though nothing is mixed there" in problems(out)[0][2]
    out = mixed(phased, tmp_path / "out", "mds")
    whole = header_of(out)["mix"]
    first, second = sorted(whole)
    for mix, words in [
        ({first: whole[first]}, f"mixes {first}, but the datasets are {first}, {second}"),
        ({first: whole[first], second: {**whole[second], "new_corpus": "/b"}}, "mixes with several new corpora"),
        ({key: {**value, "new_corpus": "a b"} for key, value in whole.items()}, "mixes with a corpus that files of"),
    ]:
        io.write_json(str(out / "export.json"), header_of(out) | {"mix": mix})
        for replay in (None, phased):
            assert any(words in what for _, _, what in problems(out, replay))
    io.write_json(str(out / "export.json"), header_of(out) | {"mix": {first: {"new_corpus": "/a", "fraction": 1.5}}})
    assert problems(out)[0][0] == "export.json"
    none = copied("uids")
    mix = {"data": {"new_corpus": "/a", "fraction": 0.5}}
    io.write_json(str(none / "export.json"), header_of(none) | {"mix": mix})
    assert any("mixes data, but" in what for _, _, what in problems(none, embedded.replay))


def test_shares_of_phases_are_the_manifests(phased, tmp_path):
    out = mixed(phased, tmp_path / "out", "mds")

    def change(header):
        header["mix"]["data/phase-001"]["fraction"] = 0.5
        write_blends(EXPORTS["mds"], str(out), mixes_of(header))

    reseal_export(out, change)
    reseal_export(out)
    assert check(out).status == "verified"
    assert [list(found) for found in problems(out, phased)] == [
        ["export.json", None, "mixes data/phase-001 by 0.5, but the manifest gives 0.25"]
    ]
