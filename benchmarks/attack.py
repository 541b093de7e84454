"""An attack on cptsel: how often it was tried, and how often it succeeded, by kind. All of the latter are to be 0.

    python benchmarks/attack.py                      # a minute a kind
    python benchmarks/attack.py --seconds 3600       # an hour a kind
    python benchmarks/attack.py --only corpus run    # some kinds alone

Kinds:

- ``corpus``: files of every format and compression with bytes changed, cut, repeated or spliced are read. It fails
  where anything but a row, a reject or OSError comes out, or a row is neither.
- ``manifest``: a byte of a file of an ordered manifest is changed, or a file cut, deleted or exchanged with another.
  It fails where ``verify`` finds nothing, or ends in anything but its own errors.
- ``run``: the same with an embedding run, and ``verify RUN``.
- ``export``: the same with an export; or all checksums, counts and indexes are made anew after a file was changed, and
  ``verify --replay`` finds nothing, though a play is another one.
- ``kill``: ``order``, ``export`` or ``select`` dies at a random file operation, with and without ``--overwrite``. It
  fails where half an output is marked as finished, or a rerun gives other bytes.
- ``signal``: they get SIGINT or SIGTERM at a random moment. It fails where the exit code is neither 0 nor 130, anything
  of the command is left that a rerun does not take away, or the rerun gives other bytes.
- ``disk``: no file may grow beyond a random size. It fails where the exit code is neither 0 nor 5, no sentence names
  the output, or a part of it is left.
- ``race``: two calls with other seeds write one directory at once. It fails where the output is not that of a call that
  ended with 0.
- ``usage``: a command line with wrong, missing and doubled values. It fails where the exit code is none of the
  documented ones, or a traceback or an internal error is shown.

The tests hold the same in small (docs/reliability.md). What failed is printed with the seed that does it again.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)
sys.path.append(os.path.join(os.path.dirname(here), "tests"))  # for what makes small runs and manifests

from corpus_builders import every_format, mutated
from export_tampering import plays_files, reseal_export
from killing import die_at, tree
from manifest_builder import build_replay
from run_builder import build_run

from cptsel.cli import main as command_line
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.config import options_of
from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import CptselError, UsageError, VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

Attack = Callable[[random.Random, Path], str | None]
"""One attack in an empty directory; what went wrong, or None."""


def corpus(rng: random.Random, folder: Path) -> str | None:
    rows = [{"id": str(i), "text": f"row {i} " * rng.randrange(1, 30), "lang": rng.choice("ab")} for i in range(60)]
    files = every_format(rows, group_rows=25)
    name, other = rng.choice(sorted(files)), rng.choice(sorted(files))
    path = folder / name
    path.write_bytes(mutated(files[name], files[other], rng))
    options = ReadOptions(group_by=("lang",))
    try:
        shard = inventory(0, str(path), path.name, path.stat().st_size, rng.choice((200, 1 << 20)))
        if shard.blocks is None:
            blocks = list(read_stream(shard, options))
        else:
            blocks = [read_block(shard, block, options) for block in shard.blocks]
    except OSError:
        return None  # named, and counted as failed
    found = [row.row_index for block in blocks for row in (*block.documents, *block.rejects)]
    return None if sorted(found) == list(range(len(found))) else f"rows {found} of {path.name}"


def manifest(rng: random.Random, folder: Path) -> str | None:
    built = build_replay(folder, shards=3, documents=4)
    order(OrderConfig(replay=str(built.replay), out=str(folder / "ordered"), world_size=2))
    return _tampered(folder / "ordered", rng, keep={outputs.STATS, outputs.CONFIG})


def run(rng: random.Random, folder: Path) -> str | None:
    return _tampered(build_run(folder / "run", rows=(20, 30), block_rows=10), rng, keep={outputs.CONFIG, outputs.STATS})


def exported(rng: random.Random, folder: Path) -> str | None:
    built = build_replay(folder, shards=3, documents=4, phases=rng.choice((1, 2)), curriculum=rng.random() < 0.5)
    # Those that refer to the corpus, or join it by names, take corpora of their own.
    taken = [name for name, it in EXPORTS.items() if it.writes_text and not it.refers and not it.joins]
    to = rng.choice(taken)
    out = folder / "out"
    export(ExportConfig(replay=str(built.replay), out=str(out), to=to), make_steps=InlineSteps)
    if rng.random() < 0.3:
        return _tampered(out, rng, keep={outputs.STATS, outputs.CONFIG})
    name = rng.choice(plays_files(out))
    whole = list(EXPORTS[to].read(str(out / name)))
    (out / name).write_bytes(mutated((out / name).read_bytes(), b"", rng))
    reseal_export(out)
    try:
        verify(VerifyConfig(directory=str(out), replay=str(built.replay)))
    except (VerificationError, UsageError):
        return None
    return None if list(EXPORTS[to].read(str(out / name))) == whole else f"other plays in {name} were not found"


def _tampered(directory: Path, rng: random.Random, keep: set[str]) -> str | None:
    """Change one file of a directory, and see whether ``verify`` says so."""
    names = sorted(set(outputs.list_tree(str(directory))) - keep)
    name, other = rng.choice(names), rng.choice(names)
    path = directory / name
    before = path.read_bytes()
    kind = rng.choice(("mutate", "mutate", "mutate", "delete", "exchange"))
    if kind == "delete":
        path.unlink()
    elif kind == "exchange":
        path.write_bytes((directory / other).read_bytes())
        if path.read_bytes() == before:
            return None
    elif name == outputs.SUCCESS:
        return None  # it is there or not; nothing is in it
    else:
        path.write_bytes(mutated(before, b"", rng))
    try:
        verify(VerifyConfig(directory=str(directory)))
    except (VerificationError, UsageError):
        return None
    if name == outputs.SUCCESS and kind == "exchange":
        return None
    return f"{kind} of {name} was not found"


def kill(rng: random.Random, folder: Path) -> str | None:
    call, overwrite = _commands(rng, folder)
    out = folder / "out"
    step = rng.randrange(120)
    code = _ended(_child(call(2, out, overwrite), folder / "said", lambda: die_at(step, out)))
    if code not in (0, 9):
        return f"exit code {code} before step {step}"
    return _rerun(call, folder)


def interrupt(rng: random.Random, folder: Path) -> str | None:
    call, overwrite = _commands(rng, folder)
    began = time.monotonic()
    _run(call(2, folder / "timed", False))
    lasts = time.monotonic() - began
    child = _child(call(2, folder / "out", overwrite), folder / "said")
    time.sleep(rng.uniform(0, lasts))
    os.kill(child, rng.choice((signal.SIGINT, signal.SIGTERM)))
    code = _ended(child)
    said = (folder / "said").read_text()
    if code not in (0, 130) or (code == 130 and "cptsel: interrupted\n" not in said):
        return f"exit code {code}: {said[-300:]}"
    return _rerun(call, folder)


def disk(rng: random.Random, folder: Path) -> str | None:
    call, overwrite = _commands(rng, folder)
    out, limit = folder / "out", int(10 ** rng.uniform(3, 5))
    before = tree(out) if overwrite else {}
    full = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    code = _ended(_child(call(2, out, overwrite), folder / "said", full))
    said = (folder / "said").read_bytes().decode()
    if code not in (0, 5) or (code == 5 and f"{out}" not in said):
        return f"exit code {code} with files of at most {limit} bytes: {said[-300:]}"
    left = tree(out) if out.exists() else {}
    if left and left not in (before, tree(folder / "2")):
        return f"a part is left with files of at most {limit} bytes: {sorted(left)}"
    return None


def race(rng: random.Random, folder: Path) -> str | None:
    call, overwrite = _commands(rng, folder)
    children = {}
    for seed in (1, 2):
        children[seed] = _child(call(seed, folder / "out", overwrite), folder / f"said-{seed}")
        time.sleep(rng.choice((0, 0, rng.uniform(0, 0.1))))
    codes = {seed: _ended(child) for seed, child in children.items()}
    won = [seed for seed, code in codes.items() if code == 0]
    if (
        not won
        or set(codes.values()) - {0, 2}
        or tree(folder / "out") not in [tree(folder / str(seed)) for seed in won]
    ):
        return f"exit codes {codes}, and the output is of none that ended with 0"
    return None


_JUNK = (
    "", "-1", "0", "1", "7", "1e400", "nan", "-0.5", "2**70", "9" * 30, "1e12", "5%", "-5%", "101%", "3 samples",
    "3 tokens", "\x1b[31m", "é" * 200, "..", "/", "/dev/null", "/dev/full", "missing", "a,b", "{}", "[", "*", "none",
)  # fmt: skip


def usage(rng: random.Random, folder: Path) -> str | None:
    """Options are the real ones, values mostly are not."""
    kind = {"embed": EmbedConfig, "select": SelectConfig, "order": OrderConfig, "export": ExportConfig}
    name = rng.choice((*kind, "verify"))
    options = options_of(kind.get(name, VerifyConfig))
    replay, run_directory = build_replay(folder, shards=2, documents=3).replay, build_run(folder / "run", rows=(9, 9))
    argument = {"embed": folder / "corpus" / "*", "select": run_directory}.get(name, replay)
    argv = [name, str(argument)] if rng.random() < 0.9 else [name]
    argv += ["--out", str(folder / "out")] if name != "verify" and rng.random() < 0.9 else []
    argv += ["--budget", "20%"] if name == "select" and rng.random() < 0.5 else []
    argv += ["--model", str(folder)] if name == "embed" else []
    flags = [f"--{option.replace('_', '-')}" for option, declared in options.items() if declared.section]
    for flag in rng.sample(sorted({*flags} - {"--debug"}), k=min(len(flags), rng.choice((1, 1, 2, 3)))):
        choices = options[flag[2:].replace("-", "_")].choices
        argv += [flag] if rng.random() < 0.15 else [flag, rng.choice(_JUNK if not choices else (*choices, *_JUNK))]
    code = _ended(_child(argv, folder / "said"), seconds=60)
    said = (folder / "said").read_bytes().decode(errors="replace")
    if code not in (0, 2, 3, 4, 5) or "Traceback" in said or "internal error" in said:
        return f"exit code {code} of {argv}: {said[-300:]}"
    return None


Call = Callable[[int, Path, bool], list[str]]
"""(seed, out, overwrite) → the arguments of a command; the seed changes what it writes."""


def _commands(rng: random.Random, folder: Path) -> tuple[Call, bool]:
    """One of the commands over small input, and whether it overwrites: then ``out`` is there, made with seed 1.

    What it writes with seeds 1 and 2 stands in the directories ``1`` and ``2``.
    """
    name = rng.choice(("order", "export", "select"))
    if name == "select":
        built = build_run(folder / "run", rows=(20, 30), block_rows=10)
        options = ["--method", "uniform", "--scope", rng.choice(("shard", "global"))]
        inputs = {seed: ["select", str(built), "--budget", f"{20 * seed}%", *options] for seed in (1, 2)}
    else:
        replay = build_replay(folder, shards=3, documents=4).replay
        inputs = {seed: ["order", str(replay), "--seed", str(seed), "--world-size", "2"] for seed in (1, 2)}
        if name == "export":
            for seed in (1, 2):
                _run([*inputs[seed], "--out", str(folder / f"ordered-{seed}")])
                inputs[seed] = ["export", str(folder / f"ordered-{seed}")]

    def call(seed: int, out: Path, overwrite: bool) -> list[str]:
        return [*inputs[seed], "--out", str(out), *(["--overwrite"] if overwrite else [])]

    for seed in (1, 2):
        _run(call(seed, folder / str(seed), False))
    overwrite = rng.random() < 0.5
    if overwrite:
        shutil.copytree(folder / "1", folder / "out")
    return call, overwrite


def _run(argv: list[str]) -> None:
    """The command in a process of its own: this one stays without threads, and can be copied."""
    with tempfile.NamedTemporaryFile() as said:
        if code := _ended(_child(argv, Path(said.name))):
            raise RuntimeError(f"exit code {code} of {argv}: {said.read().decode()}")


def _child(argv: list[str], said: Path, first: Callable[[], object] | None = None) -> int:
    """Start the command line in a copy of this process, after ``first()``; returns its id.

    What it prints goes to the file ``said``.
    """
    child = os.fork()
    if child:
        return child
    try:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if first:
            first()
        sys.argv[1:] = argv
        atexit._clear()  # what this process would clean up is not the child's
        command_line.run()
    finally:
        os._exit(70)


def _ended(child: int, seconds: float = 120) -> int:
    """The exit code of a child; -9 where it had to be ended."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def _rerun(call: Call, folder: Path) -> str | None:
    """What is wrong with the directory that an ended command has left, or with what a rerun makes of it."""
    out = folder / "out"
    left = {name: data for name, data in tree(out).items() if not outputs.temporary_of(name)} if out.exists() else {}
    left = {name: data for name, data in left.items() if not name.startswith(f"{outputs.WORK}/")}
    if outputs.SUCCESS in left and left not in (tree(folder / "1"), tree(folder / "2")):
        return "half an output is marked as finished"
    _run(call(2, out, outputs.SUCCESS in left))
    return None if tree(out) == tree(folder / "2") else "a rerun gives other bytes"


KINDS: dict[str, Attack] = {
    "corpus": corpus, "manifest": manifest, "run": run, "export": exported, "kill": kill, "signal": interrupt,
    "disk": disk, "race": race, "usage": usage,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long a kind is tried (default 60)")
    parser.add_argument("--only", nargs="+", choices=sorted(KINDS), help="kinds; all by default")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; each attack takes the next")
    args = parser.parse_args()
    failed_at_all = 0
    print(f"{'kind':<10}{'tried':>8}{'failed':>8}", flush=True)
    for name in args.only or KINDS:
        tried = failed = 0
        seed, end = args.seed, time.monotonic() + args.seconds
        while time.monotonic() < end:
            with tempfile.TemporaryDirectory(prefix="cptsel-attack-") as folder:
                try:
                    wrong = KINDS[name](random.Random(seed), Path(folder))
                except CptselError as error:
                    wrong = f"{type(error).__name__}: {error}"
                except Exception as error:
                    wrong = f"internal error {type(error).__name__}: {error}"
            if wrong:
                failed += 1
                print(f"  {name} --seed {seed}: {wrong}", file=sys.stderr, flush=True)
            tried, seed = tried + 1, seed + 1
        print(f"{name:<10}{tried:>8}{failed:>8}", flush=True)
        failed_at_all += failed
    return 1 if failed_at_all else 0


if __name__ == "__main__":
    sys.exit(main())
