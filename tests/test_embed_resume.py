"""``cptsel embed`` killed, damaged, changed and run again: never a wrong byte, never a block embedded twice."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cptsel.cli.main import main
from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding import units as embed_units
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import BadInputError, PartialError, UsageError
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

# How the reference run was made; one row of the corpus is damaged.
OPTIONS = {"max_tokens": 64, "sketch_dim": 64, "validation_dim": 32, "block_bytes": 2000, "max_bad_fraction": 0.1}
PATIENCE = 600  # seconds: far more than anything here takes, so that a hang fails and a busy machine does not


@dataclass(frozen=True)
class Place:
    """A corpus of a plain, a gzip and a Parquet shard of several blocks each, and its undisturbed run."""

    corpus: Path
    model: Path
    reference: Path

    def config(self, out: Path, **options: object) -> EmbedConfig:
        settings = {"inputs": (f"{self.corpus}/*",), "model": str(self.model), "out": str(out)} | OPTIONS | options
        return EmbedConfig(**settings)


@pytest.fixture(scope="module")
def place(tmp_path_factory, sample_data, tiny_lm) -> Place:
    folder = tmp_path_factory.mktemp("resume")
    corpus = folder / "corpus"
    corpus.mkdir()
    lines = [_lines(sample_data / "old" / name) for name in ("docs_en", "code_python", "docs_fr")]
    (corpus / "a.jsonl").write_text("\n".join([*lines[0][:3], "{damaged", *lines[0][3:]]) + "\n")
    (corpus / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[1]).encode()))
    table = pa.Table.from_pylist([json.loads(line) for line in lines[2]])
    pq.write_table(table, corpus / "c.parquet", row_group_size=2)
    made = Place(corpus, tiny_lm, folder / "reference")
    summary = embed(made.config(made.reference))
    assert summary.status == "done"
    assert summary.totals["rows rejected"] == 1
    blocks = [name[:6] for name in _embeddings(made.reference)]
    assert min(blocks.count(shard) for shard in ("000000", "000001", "000002")) >= 3
    return made


def _lines(folder: Path) -> list[str]:
    """Ten documents of the sample data, cut to some hundred characters, as JSON lines."""
    with gzip.open(folder / "shard-00000.jsonl.gz", "rt") as handle:
        rows = [json.loads(next(handle)) for _ in range(10)]
    return [json.dumps({"id": row["id"], "text": row["text"][:700], "lang": row["lang"]}) for row in rows]


def _embeddings(run: Path) -> list[str]:
    return io.list_names(str(run / "embeddings"), ".parquet")


def _contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but the two that speak of one call: its times, and its own options."""
    names = set(outputs.list_tree(str(run))) - {"stats.json", "config.yaml"}
    return {name: (run / name).read_bytes() for name in names}


def _identities(run: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of the files of finished units: rewriting one, even with the same bytes, changes both."""
    units = [f"{kind}/{name}" for name in _embeddings(run) for kind in ("embeddings", "rejects")]
    return {name: ((run / name).stat().st_ino, (run / name).stat().st_mtime_ns) for name in units}


@pytest.mark.parametrize(
    ("killed_with", "resumed_with"),
    [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)],  # worker processes take long to start
)
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(place, tmp_path, killed_with, resumed_with):
    out = tmp_path / "run"
    _embed_until_killed(place, out, killed_with)
    kept = _identities(out)
    assert 0 < len(kept) < 2 * len(_embeddings(place.reference))
    for name in ("embeddings/.000000-00000.parquet.0123456789ab.tmp", ".run.json.0123456789ab.tmp"):
        (out / name).write_bytes(b"half a fi")
    assert embed(place.config(out, workers=resumed_with)).status == "resumed"
    assert _contents(out) == _contents(place.reference)
    assert {name: identity for name, identity in _identities(out).items() if name in kept} == kept


def _embed_until_killed(place: Place, out: Path, workers: int) -> None:
    """Start the command and kill it, it alone, when some blocks are written; its workers must then end by themselves.

    Should the machine be so busy that the run is done before it is killed, it is begun again.
    """
    for _ in range(5):
        shutil.rmtree(out, ignore_errors=True)
        with _started(place, out, workers) as process:
            _wait(lambda: len(_embeddings(out)) >= 3 or process.poll() is not None)
            process.send_signal(signal.SIGKILL)
            code = process.wait()
            _wait(lambda: not _living(process.pid))
        assert code in (0, -signal.SIGKILL), (out.parent / "stderr").read_text()
        if not (out / "_SUCCESS").exists() and len(_embeddings(out)) < len(_embeddings(place.reference)):
            return
    pytest.fail("the run was done each time before it could be killed")


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def _started(place: Place, out: Path, workers: int) -> Iterator[subprocess.Popen]:
    """The command in a process group of its own, of which nothing is left in the end."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (OPTIONS | {"workers": workers}).items()]
    command = [sys.executable, "-m", "cptsel", "embed", f"{place.corpus}/*", "--model", str(place.model), "--out", out]
    with open(out.parent / "stderr", "wb") as stderr:
        process = subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)
    try:
        yield process
    finally:
        if _living(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _living(group: int) -> list[str]:
    """Processes of a group, those aside that have ended and that nobody has waited for yet."""
    table = subprocess.run(["ps", "-A", "-o", "pgid=,stat=,pid="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in table.splitlines()]
    return [pid for pgid, stat, pid in rows if int(pgid) == group and not stat.startswith("Z")]


def test_what_stopped_short_of_done_is_not_embedded_again(place, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(embed_units, "read_block", _failing(embed_units.read_block))
        patch.setattr(embed_units, "read_stream", _failing_stream(embed_units.read_stream))
        with pytest.raises(
            PartialError, match=r"a\.jsonl: Input/output error \(2 shards failed: a\.jsonl, b\.jsonl\.gz\).*run again"
        ):
            embed(place.config(out))
    missing = sorted(set(_embeddings(place.reference)) - set(_embeddings(out)))
    last = _embeddings(place.reference)[-1]
    assert missing[0] == "000000-00001.parquet"
    assert missing[1] == "000001-00002.parquet"  # and all of that stream that comes after
    assert all(name.startswith("000001") for name in missing[1:])
    assert last not in missing
    kept = _identities(out)

    with pytest.raises(BadInputError, match=r"1 of 31 rows .* \(1 bad_json\), more .* the first is row \d+ of /"):
        embed(place.config(out, max_bad_fraction=0.0))
    assert not (out / "_SUCCESS").exists()
    whole = _identities(out)
    assert {name: whole[name] for name in kept} == kept
    assert len(whole) == 2 * len(_embeddings(place.reference))

    assert embed(place.config(out)).status == "resumed"
    assert _identities(out) == whole
    assert _contents(out) == _contents(place.reference)


def _failing(read):
    """``read_block`` on a disk that gives one block of a.jsonl no more."""

    def read_block(shard, block, options):
        if shard.path == "a.jsonl" and block.block == 1:
            raise OSError("Input/output error")
        return read(shard, block, options)

    return read_block


def _failing_stream(read):
    """``read_stream`` on a disk that breaks off after two blocks."""

    def read_stream(shard, options):
        blocks = read(shard, options)
        yield next(blocks)
        yield next(blocks)
        raise OSError("Input/output error")

    return read_stream


def test_a_disk_that_can_not_be_written_to_ends_the_command_in_one_sentence(place, tmp_path, monkeypatch):
    write = io.write_bytes

    def full(path, data):
        if "/embeddings/" in path:
            raise OSError(28, "No space left on device", path)
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(io, "write_bytes", full)
        with pytest.raises(PartialError, match=r"^[^\n]*No space left on device[^\n]*run the same command[^\n]*$"):
            embed(place.config(tmp_path / "run", inputs=(f"{place.corpus}/a.jsonl",)))


def test_a_damaged_unit_is_made_again(place, tmp_path):
    out = _copied(place, tmp_path)
    (out / "_SUCCESS").unlink()
    whole = _identities(out)
    cut = out / "embeddings" / "000000-00001.parquet"
    cut.write_bytes(cut.read_bytes()[:-100])
    flipped = out / "embeddings" / "000000-00000.parquet"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1  # the footer stays as it was
    flipped.write_bytes(data)
    (out / "rejects" / "000002-00000.parquet").unlink()
    assert embed(place.config(out)).status == "resumed"
    assert _contents(out) == _contents(place.reference)
    now = _identities(out)
    changed = {name.split("/")[1] for name in now if now[name] != whole[name]}
    assert changed == {"000000-00000.parquet", "000000-00001.parquet", "000002-00000.parquet"}


def test_files_in_each_others_place_are_made_again(place, tmp_path):
    out = _copied(place, tmp_path)
    first, second = (out / "embeddings" / name for name in ("000000-00000.parquet", "000000-00001.parquet"))
    second.write_bytes(first.read_bytes())
    first.unlink()
    assert embed(place.config(out)).status == "resumed"
    assert _contents(out) == _contents(place.reference)
    assert verify(VerifyConfig(directory=str(out))).status == "verified"


def _copied(place: Place, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place.reference, tmp_path / "run"))


def test_a_finished_run_is_left_alone(place, tmp_path):
    out = _copied(place, tmp_path)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    moved = shutil.copytree(place.model, tmp_path / "moved")  # the same weights elsewhere are the same model
    summary = embed(place.config(out, model=str(moved), max_bad_fraction=0.5))
    assert summary.status == "already done"
    assert summary.totals["rows read"] == 31
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in place.reference.iterdir())


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--max-tokens=32",), "was begun with --max-tokens 64, now 32"),
        (("--sketch-dim=65",), "was begun with --sketch-dim 64, now 65"),
        (("--validation-dim=33",), "was begun with --validation-dim 32, now 33"),
        (("--seed=1",), "was begun with --seed 0, now 1"),
        (("--norm=exact",), "was begun with --norm sketch, now exact"),
        (("--group-by=lang",), "was begun with --group-by not set, now lang"),
        (("--storage=int8",), "was begun with --storage float16, now int8"),
        (("--block-bytes=2001",), "was begun with --block-bytes 2000, now 2001"),
        (("--limit=5",), "was begun with --limit not set, now 5"),
        (("--exclude=ids",), "the list of --exclude changed"),
        (("--model=weights",), "the model's weights changed"),
        (("--model=tokenizer",), "the tokenizer changed"),
        (("other/*",), "the corpus (b.jsonl.gz) changed"),
        (("other/a.jsonl",), "the corpus (b.jsonl.gz, c.parquet) changed"),
    ],
)
def test_a_rerun_that_asks_for_other_rows_is_refused_naming_the_difference(
    place, changed, tmp_path, monkeypatch, capfd, flags, sentence
):
    out = _copied(place, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    monkeypatch.chdir(changed)
    usual = {f"--{name.replace('_', '-')}": value for name, value in OPTIONS.items()} | {"--model": place.model}
    asked = dict(flag.split("=") for flag in flags if flag.startswith("--"))
    options = [f"{name}={value}" for name, value in (usual | asked).items()]
    code = main(["embed", f"--out={out}", *options, f"{place.corpus}/*" if asked else flags[0]])
    error = capfd.readouterr().err
    assert code == 2
    assert error.startswith(f"cptsel: error: {out}: {sentence}")
    assert error.endswith(f"; use another --out, or --overwrite to replace {out}\n")
    assert error.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path != out} == {
        path: time for path, time in before.items() if path != out
    }


@pytest.fixture(scope="module")
def changed(place, tmp_path_factory) -> Path:
    """A folder of what can change: the model's weights, its tokenizer, the corpus, the list of exclusions."""
    folder = tmp_path_factory.mktemp("changed")
    (folder / "ids").write_text("nobody\n")
    weights = shutil.copytree(place.model, folder / "weights") / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    tokenizer = shutil.copytree(place.model, folder / "tokenizer") / "tokenizer.json"
    parts = json.loads(tokenizer.read_text())
    parts["model"]["merges"].pop()
    tokenizer.write_text(json.dumps(parts))
    other = shutil.copytree(place.corpus, folder / "other") / "b.jsonl.gz"
    text = gzip.decompress(other.read_bytes())
    other.write_bytes(gzip.compress(text.replace(b"e", b"E", 1)))
    return folder


def test_overwrite_replaces_a_run_and_leaves_nothing_of_it(place, tmp_path):
    out = _copied(place, tmp_path)
    summary = embed(place.config(out, inputs=(f"{place.corpus}/a.jsonl",), seed=1, overwrite=True))
    assert summary.status == "done"
    assert {name[:6] for name in _embeddings(out)} == {"000000"}
    assert {name[:6] for name in io.list_names(str(out / "rejects"))} == {"000000"}
    first = "embeddings/000000-00000.parquet"
    assert (out / first).read_bytes() != (place.reference / first).read_bytes()
    assert embed(place.config(out, overwrite=True)).status == "done"
    assert _contents(out) == _contents(place.reference)


def test_a_directory_of_others_is_not_written_into(place, tmp_path):
    theirs = tmp_path / "thesis.txt"
    theirs.write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds files that cptsel embed did not write"):
            embed(place.config(tmp_path, overwrite=overwrite))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
