"""The pipelines on Beam's Spark runner write the bytes that the local runner writes, and end when they fail.

Needs Java, pyspark and the jars of a job server for Beam (CPTSEL_SHARED); the last tests need none of these.
docs/engines.md says what else was tried.
"""

import contextlib
import gzip
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch
import torch

from cptsel.cli.main import main
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.corpus.listing import list_inputs
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.lookahead import ahead
from cptsel.pipeline.embedding.mixing import with_mixing
from cptsel.pipeline.embedding.plan import plan_model
from cptsel.pipeline.embedding.pool import look, pool_share
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig

EMBED = {"max_tokens": 64, "sketch_dim": 64, "validation_dim": 32, "block_bytes": 10_000, "group_by": ("source",)}
SELECT = [
    {"method": "craig", "budget": "20%", "neighbours": 16, "scope": "shard"},
    {"method": "craig", "budget": "20%", "neighbours": 16, "scope": "global"},
    {"method": "gradmatch", "budget": "20%", "scope": "global", "partition": "cluster", "partitions": 2},
    {"method": "mix-review", "budget": "20%", "phases": 2, "explore": 0.5},
]
LIMIT_S = 600  # of one command, which takes a minute or two: a Spark job whose workers do not come up waits for ever

Run = Callable[..., tuple[int, str]]


def _example(repository: Path) -> ModuleType:
    """``examples/spark_cluster.py`` as a module."""
    spec = importlib.util.spec_from_file_location("spark_cluster", repository / "examples" / "spark_cluster.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example(repository) -> ModuleType:
    return _example(repository)


@pytest.fixture(scope="module")
def jar(shared, example, tmp_path_factory) -> Path:
    """A job server; skips where this machine lacks what Spark needs."""
    maker = shared / "jars" / "make_job_server.py"
    if sentence := example.missing():
        pytest.skip(sentence)
    if not maker.exists():
        pytest.skip(f"no jars of Beam's Spark job server at {maker.parent}")
    jar = tmp_path_factory.mktemp("jar") / "job-server.jar"
    subprocess.run([sys.executable, maker, jar], check=True, capture_output=True, timeout=LIMIT_S)
    return jar


@pytest.fixture(scope="module")
def standalone(jar, example, tmp_path_factory) -> Iterator[tuple[list[str], dict[str, "subprocess.Popen[bytes]"]]]:
    """Options of a master with two workers and a pool, and their processes."""
    with example.cluster(str(jar), tmp_path_factory.mktemp("standalone")) as found:
        yield found


@pytest.fixture(scope="module", params=["local[2]", "standalone cluster"])
def spark(request, example, jar, tmp_path_factory) -> Run:
    """A function that runs a command of cptsel on Spark on this machine: its exit code and stderr.

    With two threads in one process, and on a master with two workers and a pool.
    """
    folder = tmp_path_factory.mktemp("spark")

    def runner(engine: list[str]) -> Run:
        def run(*arguments: object) -> tuple[int, str]:
            log = folder / "stderr"
            with open(log, "wb") as stderr:
                command = [sys.executable, "-m", "cptsel", *map(str, arguments), "--", *engine]
                try:
                    code = example.run(command, LIMIT_S, stdout=subprocess.DEVNULL, stderr=stderr)
                except TimeoutError as error:
                    pytest.fail(f"{error}: {log.read_text()[-3000:]}")
            return code, log.read_text()

        return run

    if request.param == "local[2]":
        return runner(["--runner=SparkRunner", f"--spark_job_server_jar={jar}", "--spark_master_url=local[2]"])
    engine, _ = request.getfixturevalue("standalone")
    return runner(engine)


@pytest.fixture(scope="module")
def corpus(sample_data, tmp_path_factory) -> Path:
    """Twenty documents, as a plain and a compressed shard of several blocks each."""
    folder = tmp_path_factory.mktemp("corpus")
    for source, name in (("docs_en", "a.jsonl"), ("code_python", "b.jsonl.gz")):
        with gzip.open(sample_data / "old" / source / "shard-00000.jsonl.gz") as handle:
            text = b"".join(next(handle) for _ in range(10))
        (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return folder


@pytest.fixture(scope="module")
def local_run(corpus, tiny_lm, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("local") / "run"
    embed(EmbedConfig(inputs=(f"{corpus}/*",), model=str(tiny_lm), out=str(out), **EMBED))
    return out


def _flags(settings: dict[str, object]) -> list[str]:
    values = {name: ",".join(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def _contents(directory: Path) -> dict[str, bytes]:
    names = set(outputs.list_tree(str(directory))) - {outputs.STATS, outputs.CONFIG}
    return {name: (directory / name).read_bytes() for name in names}


@pytest.mark.spark
def test_embed_writes_the_same_bytes(spark, corpus, tiny_lm, local_run, tmp_path):
    out = tmp_path / "run"
    code, log = spark("embed", f"{corpus}/*", "--model", tiny_lm, "--out", out, *_flags(EMBED))
    assert code == 0, log[-3000:]
    assert _contents(out) == _contents(local_run)
    assert len(outputs.list_tree(str(out / "embeddings"))) > 4


@pytest.mark.spark
@pytest.mark.parametrize("options", SELECT)
def test_select_writes_the_same_bytes(spark, local_run, tmp_path, options):
    here, there = tmp_path / "here", tmp_path / "there"
    select(SelectConfig(runs=(str(local_run),), out=str(here), **options))
    code, log = spark("select", local_run, "--out", there, *_flags(options))
    assert code == 0, log[-3000:]
    assert _contents(there) == _contents(here)


@pytest.mark.spark
def test_export_writes_the_same_bytes_and_verify_finds_both_whole(spark, local_run, tmp_path):
    """Of a manifest whose pieces are merged, and with token ids."""
    replay, here, there = (tmp_path / name for name in ("replay", "here", "there"))
    select(SelectConfig(runs=(str(local_run),), out=str(replay), budget="20%", method="uniform"))
    export(ExportConfig(replay=str(replay), out=str(here), to="olmo"))
    code, log = spark("export", replay, "--out", there, "--to=olmo")
    assert code == 0, log[-3000:]
    assert _contents(there) == _contents(here)
    for arguments in ((local_run,), (replay, "--sources")):
        code, log = spark("verify", *arguments)
        assert code == 0, log[-3000:]


@pytest.mark.spark
@pytest.mark.parametrize("command", ["distill", "fisher"])
def test_what_runs_the_model_over_a_choice_writes_the_same_bytes(spark, local_run, tiny_lm, tmp_path, command):
    replay, here, there = (tmp_path / name for name in ("replay", "here", "there"))
    select(SelectConfig(runs=(str(local_run),), out=str(replay), budget="20%", method="uniform"))
    arguments = [command, str(replay), "--model", str(tiny_lm), "--out"]
    assert main([*arguments, str(here)]) == 0
    code, log = spark(*arguments, there)
    assert code == 0, log[-3000:]
    assert _contents(there) == _contents(here)


def _session(first: int, words: str) -> list[int]:
    """Processes of the session that ``first`` began, but for itself, with these words in their command lines."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(folder.name)
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
            if session == first != number and words in (folder / "cmdline").read_text():
                found.append(number)
    return found


def _victims(victim: str, processes: "dict[str, subprocess.Popen[bytes]]", driver: int) -> list[int]:
    """One executor, one Python worker, or the command with its job server; none while it is not there."""
    if victim == "executor":
        return _session(processes["worker-0"].pid, "CoarseGrainedExecutorBackend")[:1]
    if victim == "python worker":
        return _session(processes["pool"].pid, "SdkHarness")[:1]
    return [*_session(driver, ""), driver]


@pytest.mark.spark
@pytest.mark.parametrize("victim", ["executor", "python worker", "driver"])
def test_a_process_that_is_killed_costs_no_byte(standalone, example, corpus, tiny_lm, tmp_path, victim):
    """While blocks are embedded. The job ends, or the same command goes on where it was; no file is left over."""
    engine, processes = standalone
    settings, here, out, log = EMBED | {"block_bytes": 3_000}, tmp_path / "here", tmp_path / "run", tmp_path / "stderr"
    embed(EmbedConfig(inputs=(f"{corpus}/*",), model=str(tiny_lm), out=str(here), **settings))
    command = [sys.executable, "-m", "cptsel", "embed", f"{corpus}/*", "--model", str(tiny_lm), "--out", str(out)]
    command += [*_flags(settings), "--", *engine]
    end, killed = time.monotonic() + LIMIT_S, []
    with open(log, "wb") as stderr:
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)
        try:
            while driver.poll() is None:
                assert time.monotonic() < end, log.read_text()[-3000:]
                if not killed and any(out.glob("embeddings/*.parquet")):
                    killed = _victims(victim, processes, driver.pid)
                    for number in killed:
                        os.kill(number, signal.SIGKILL)
                time.sleep(0.02)
        finally:
            example.stop(driver)
    assert killed, log.read_text()[-3000:]
    assert driver.returncode in ({-signal.SIGKILL} if victim == "driver" else {0, 5}), log.read_text()[-3000:]
    if driver.returncode:
        assert not (out / outputs.SUCCESS).exists()
        with open(log, "wb") as stderr:
            code = example.run(command, LIMIT_S, stdout=subprocess.DEVNULL, stderr=stderr)
        assert code == 0, log.read_text()[-3000:]
    assert _contents(out) == _contents(here)


@pytest.mark.spark
def test_a_model_that_workers_can_not_use_ends_the_job(spark, corpus, tiny_lm, tmp_path):
    model = shutil.copytree(tiny_lm, tmp_path / "model")
    weights = safetensors.torch.load_file(model / "model.safetensors")
    broken = {name: values * float("nan") for name, values in weights.items()}
    safetensors.torch.save_file(broken, model / "model.safetensors", {"format": "pt"})
    code, log = spark("embed", f"{corpus}/a.jsonl", "--model", model, "--out", tmp_path / "run", *_flags(EMBED))
    assert code == 2, log[-3000:]
    (sentence,) = [line for line in log.splitlines() if line.startswith("cptsel: error:")]
    assert sentence.startswith(f"cptsel: error: --model {model}: ")
    assert not (tmp_path / "run" / "_SUCCESS").exists()


def test_a_command_that_takes_too_long_ends_with_all_that_it_started(repository, tmp_path):
    script = f"sleep 300 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(TimeoutError, match="still running after 2 s"):
        _example(repository).run(["sh", "-c", script], 2)
    status = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that is to be missing")
def test_a_gpu_is_asked_of_the_workers_and_not_of_who_gives_the_command(corpus, tiny_lm, tmp_path):
    settings = {"inputs": (f"{corpus}/*",), "model": str(tiny_lm), "out": str(tmp_path / "run"), "device": "cuda"}
    with pytest.raises(UsageError, match="--device cuda: this machine has no usable GPU"):
        embed(EmbedConfig(**settings))
    plan = plan_model(EmbedConfig(**settings), here=False)
    assert (plan.spec.device, plan.spec.dtype) == ("cuda", "bfloat16")
    with pytest.raises(UsageError, match="--device cuda: this machine has no usable GPU"):
        FrozenModel(plan.spec)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that is to be missing")
@pytest.mark.parametrize(
    ("option", "settings", "run"),
    [
        ("--dry-run", {"dry_run": True}, lambda config, plan, files: look(config, plan, files, timed=True)),
        ("--time-budget", {"time_budget": "1h"}, pool_share),
        ("--gradient head+body", {"gradient": "head+body"}, with_mixing),
        ("--lookahead", {}, lambda config, plan, files: ahead(config, plan, here=False)),
    ],
)
def test_a_gpu_is_asked_of_who_gives_the_command_where_that_runs_the_model(
    corpus, tiny_lm, tmp_path, option, settings, run
):
    inputs = (f"{corpus}/*",)
    settings = settings or {"lookahead": inputs}
    config = EmbedConfig(inputs=inputs, model=str(tiny_lm), out=str(tmp_path / "run"), device="cuda", **settings)
    _, files = list_inputs(inputs, None)
    sentence = f"--device cuda: {option} runs the model on this machine too, which has no usable GPU; give the command"
    with pytest.raises(UsageError, match=re.escape(sentence)):
        run(config, plan_model(config, here=False), files)
