"""How the cost of every command grows: CPU time and memory as work grows by 10, and the exponents.

    python benchmarks/scale.py --out scale.jsonl                    # all; goes on where it was stopped
    python benchmarks/scale.py --out scale.jsonl --only order verify
    python benchmarks/scale.py --out scale.jsonl --samples 100 1000 10000 100000 1000000
    python benchmarks/scale.py --out scale.jsonl --report           # only prints the tables of docs/scale.md

Two series: samples grow in ten shards (``--samples``), and shards grow with the samples fixed (``--shards``,
``--shard-samples``). Of each corpus ``embed`` makes a run, and ``select``, ``order``, ``verify`` and ``export`` follow.
The model does next to nothing: one layer of 16 numbers behind the tokenizer of ``sample_data/tiny-lm``. Most of what
``embed`` takes is its LM head even so, which is the model's cost and not ours; *embed, no gradients* is ``embed`` with
random numbers in the place of forward pass and gradients. ``--tiny`` says for how many samples that tiny model itself
embeds. A document is 20 words of ``sample_data``, hence one sample, and ``--long-words`` in a third series of
``--long`` documents, as a corpus has them: it says what a token costs beside the model.

Every command runs in a process of its own, with one worker and one thread: CPU seconds, user and system, of it and its
children, and the peak memory of the largest of them. One JSON line a measurement; those that ``--out`` has already are
not made again. ``order`` and ``inspect`` of a million files: ``run_directory.py``.

The last tables carry what was measured on to a corpus that nobody here has: ``--corpus-samples`` and the like say which
and on how many workers. It takes the largest work that was measured, less the start, in proportion, or to the power of
the exponent where that is above 1; and for the model what is assumed of a GPU (``--gpu-...``).

The exponent is the slope of a line through log(work) and log(CPU time) by least squares, the time of the smallest
work of the series subtracted as that of starting. Works that took less than half as much again as the smallest are no
points of the line: the noise of the start would outweigh them.
"""

from __future__ import annotations

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)

import argparse
import glob
import gzip
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
WORDS = 20  # of a document
GREW = 1.5  # times the CPU time of the smallest work: less is noise
IN_SHARDS = 10  # are the samples of the series whose samples grow
BARE = "embed, no gradients"
LONG = "long samples"

#: Makes the model that does next to nothing; arguments are its folder and the size of the vocabulary.
MODEL = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(
    vocab_size=int(sys.argv[2]), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
    num_key_value_heads=1, max_position_embeddings=2048, bos_token_id=0, eos_token_id=0, tie_word_embeddings=True,
)).save_pretrained(sys.argv[1])
"""

#: ``cptsel`` with random numbers for the gradients of a batch; the same for the same tokens.
BARE_CPTSEL = """
import torch
from cptsel.cli.main import run
from cptsel.pipeline.kernels.gradients.batch import BatchGradients
from cptsel.pipeline.model.gradients.head import HeadGradient

BANK = torch.randn(4096, 1024, generator=torch.Generator().manual_seed(0))

def of_batch(self, tokens, lengths):
    spec, rows = self.model.spec, BANK[tokens.sum(dim=1) % len(BANK)]
    return BatchGradients(rows[:, :spec.sketch_dim], rows[:, :spec.validation_dim], lengths.float(), None)

HeadGradient.of_batch = of_batch
run()
"""

#: What a command is given, after its name, in order; each reads what those before it wrote.
COMMANDS = {
    "embed": "embed {corpus}/*.jsonl --model {model} --max-tokens {longest} --sketch-dim 256 --validation-dim 64 "
    "--out {run}",
    BARE: "embed {corpus}/*.jsonl --model {model} --max-tokens {longest} --sketch-dim 256 --validation-dim 64 "
    "--out {bare}",
    "select uniform": "select {run} --method uniform --budget 10% --out {uniform}",
    "select shard": "select {run} --scope shard --budget 10% --out {shard}",
    "select global": "select {run} --scope global --budget 10% --out {global}",
    "select cluster": "select {run} --scope global --partition cluster --budget 10% --out {cluster}",
    "order": "order {uniform} --world-size 8 --out {ordered}",
    "verify": "verify {ordered}",
    "verify --sources": "verify {ordered} --sources",
    "export": "export {ordered} --to jsonl --out {export}",
}
READS = {"order": "select uniform", "verify": "order", "verify --sources": "order", "export": "order"}


def main() -> None:
    """Measure what is not measured yet, then print the tables."""
    args = parse_arguments()
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    found = {key_of(line): line for line in map(json.loads, lines)}
    if not args.report:
        work = args.work or Path(tempfile.mkdtemp(prefix="cptsel-scale-"))
        try:
            with args.out.open("a") as out:
                for line in measurements(args, work, found):
                    print(json.dumps(line), file=out, flush=True)
                    print(json.dumps(line), flush=True)
                    found[key_of(line)] = line
        finally:
            if args.work is None:
                shutil.rmtree(work, ignore_errors=True)
    print_exponents(list(found.values()))
    print_extrapolation(list(found.values()), args)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is there is not measured again")
    parser.add_argument("--work", type=Path, help="directory to keep, and to take what is there from")
    parser.add_argument("--samples", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 10, 100, 1_000, 10_000])
    parser.add_argument("--shard-samples", type=int, default=10_000, help="samples in all shards of the second series")
    parser.add_argument("--tiny", type=int, nargs="+", default=[10, 100, 1_000], help="samples for the tiny model")
    parser.add_argument("--long", type=int, nargs="+", default=[100, 1_000, 10_000], help="samples of --long-words")
    parser.add_argument("--long-words", type=int, default=440, help="of such a document: some 900 tokens")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--report", action="store_true", help="only print the tables of what --out has")
    parser.add_argument("--corpus-samples", type=float, default=1e9)
    parser.add_argument("--corpus-tokens", type=float, default=2e12)
    parser.add_argument("--corpus-shards", type=float, default=1e5)
    parser.add_argument("--pool", type=float, default=0.02, help="share of the corpus that is embedded")
    parser.add_argument("--workers", type=int, default=64, help="GPUs for embed, processes of one core for all else")
    parser.add_argument("--gpu-parameters", type=float, default=7e9, help="of the model")
    parser.add_argument(
        "--gpu-flops", type=float, default=989e12, help="peak, a second, of a GPU; H100 SXM in bfloat16"
    )
    parser.add_argument("--gpu-share", type=float, default=0.4, help="of the peak that a forward pass reaches")
    parser.add_argument(
        "--gradients", type=float, default=1.1, help="time of a forward pass with head gradients, in such"
    )
    return parser.parse_args()


def key_of(line: dict[str, Any]) -> tuple[Any, ...]:
    """What a measurement is of."""
    return tuple(line[name] for name in ("command", "model", "grows", "documents", "shards"))


def measurements(args: argparse.Namespace, work: Path, found: dict[tuple[Any, ...], Any]) -> Iterator[dict[str, Any]]:
    """All measurements that ``found`` lacks, the small ones first."""
    sizes = [("none", "samples", samples, IN_SHARDS) for samples in sorted(args.samples)]
    sizes += [("none", "shards", max(args.shard_samples, shards), shards) for shards in sorted(args.shards)]
    sizes += [("tiny", "samples", samples, IN_SHARDS) for samples in sorted(args.tiny)]
    sizes += [("none", LONG, samples, IN_SHARDS) for samples in sorted(args.long)]
    for model, grows, documents, shards in sorted(sizes, key=lambda size: size[2] * (100 if size[0] == "tiny" else 1)):
        able = [BARE] if grows == LONG else list(COMMANDS) if model == "none" else ["embed"]
        wanted = [command for command in able if command in args.only]
        of = {"model": model, "grows": grows, "documents": documents, "shards": shards}
        keys = {command: key_of({"command": command, **of}) for command in wanted}
        if all(key in found for key in keys.values()):
            continue
        base = work / f"{model}-{grows.split()[0]}-{documents}-{shards}"
        names = ("run", "bare", "uniform", "shard", "global", "cluster", "ordered", "export", "corpus")
        places: dict[str, object] = {name: base / name for name in names}
        places |= {"model": make_model(work) if model == "none" else SAMPLE / "tiny-lm"}
        places |= {"longest": 1024 if grows == LONG else 128}
        make_corpus(base / "corpus", documents, shards, args.long_words if grows == LONG else WORDS)
        for command in needed(wanted, keys, found):
            line = {"command": command, **of}
            words = [word.format(**places) for word in COMMANDS[command].split()]
            is_new = command in keys and keys[command] not in found
            if "--out" in words:
                if not is_new and Path(words[-1], "_SUCCESS").exists():
                    continue  # what an earlier call wrote
                shutil.rmtree(words[-1], ignore_errors=True)
            line |= measure(words, BARE_CPTSEL if command == BARE else None)
            if is_new:
                yield line
        if args.work is None:
            shutil.rmtree(base)


def needed(wanted: list[str], keys: dict[str, Any], found: dict[tuple[Any, ...], Any]) -> list[str]:
    """The commands that lack a measurement, with those that write what they read."""
    run: set[str] = set()
    for command in wanted:
        if keys[command] not in found:
            run.add(command)
            while command not in ("embed", BARE):
                command = READS.get(command, "embed")
                run.add(command)
    return [command for command in COMMANDS if command in run]


def make_model(work: Path) -> Path:
    """A causal LM that costs next to nothing, with the tokenizer of the tiny one.

    It is made by a process of its own: what this one has in memory would count as that of the commands it starts.
    """
    place = work / "none"
    if not place.exists():
        making = work / "making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(SAMPLE / "tiny-lm" / name, making / name)
        vocab = json.loads((SAMPLE / "tiny-lm" / "config.json").read_text())["vocab_size"]
        subprocess.run([sys.executable, "-c", MODEL, str(making), str(vocab)], check=True, stderr=subprocess.DEVNULL)
        making.rename(place)
    return place


def make_corpus(folder: Path, documents: int, shards: int, length: int) -> None:
    """Documents of real words, dealt out to shards of JSON lines."""
    if folder.exists():
        return
    words: list[str] = []
    for path in sorted(glob.glob(str(SAMPLE / "old/*_en/*.jsonl.gz"))):
        lines = gzip.decompress(Path(path).read_bytes()).decode().splitlines()
        words += " ".join(json.loads(line)["text"] for line in lines).split()
    starts = np.random.default_rng(0).integers(0, len(words) - length, documents).tolist()
    making = folder.with_name("making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    for shard in range(shards):
        lines = [json.dumps({"text": " ".join(words[at : at + length])}) + "\n" for at in starts[shard::shards]]
        (making / f"{shard:06d}.jsonl").write_text("".join(lines))
    making.rename(folder)


def measure(words: list[str], program: str | None = None) -> dict[str, Any]:
    """Time and peak memory of a command in a process of its own, and what its summary counts.

    ``program`` is the source of one that is to run in the place of ``cptsel``.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        command = [sys.executable, *(["-m", "cptsel"] if program is None else ["-c", program]), *words, "--json"]
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.DEVNULL, env=os.environ | threads | {"OMP_WAIT_POLICY": "passive"}
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"cptsel {' '.join(words)}: exit code {os.waitstatus_to_exitcode(status)}")
        out.seek(0)
        totals = json.load(out)["totals"]
    counts = {name: totals[name] for name in ("samples", "tokens", "bytes of embeddings") if name in totals}
    return {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "seconds": round(time.monotonic() - began, 1),
        "peak_mib": usage.ru_maxrss >> 10,
        "counts": counts,
    }


def print_exponents(lines: list[dict[str, Any]]) -> None:
    """A table by series and command: exponents of CPU time, and the largest work."""
    print("\n| grows | command | from | to | exponent of CPU time | CPU seconds at most | start, CPU seconds | MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for grows, model in (("samples", "none"), ("samples", "tiny"), (LONG, "none"), ("shards", "none")):
        for command in COMMANDS:
            of = {"command": command, "grows": grows, "model": model}
            mine = sorted((line for line in lines if of.items() <= line.items()), key=work_of)
            if len(mine) < 3:
                continue
            first, last = mine[0], mine[-1]
            name = command if model == "none" else f"{command}, tiny model"
            print(
                f"| {grows} | {name} | {work_of(mine[1]):,} | {work_of(last):,} | {exponent(mine)} | "
                f"{last['cpu_seconds']:.1f} | {first['cpu_seconds']:.1f} | {last['peak_mib']:,} |"
            )


def print_extrapolation(lines: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """What a corpus of another size would take, line by line."""
    series = {
        (command, grows): sorted(
            (line for line in lines if (line["command"], line["grows"], line["model"]) == (command, grows, "none")),
            key=work_of,
        )
        for command in COMMANDS
        for grows in ("samples", "shards", LONG)
    }
    if any(len(series[command, LONG if command == BARE else "samples"]) < 3 for command in COMMANDS):
        print("\nno extrapolation: not all commands were measured at three works")
        return
    smaller, larger = series["embed", "samples"][-2:]
    step = {name: larger["counts"][name] - smaller["counts"][name] for name in larger["counts"]}
    row = step["bytes of embeddings"] / step["samples"] + 2 * (1024 - 256) + 2 * (256 - 64)  # by default k is 1024
    tokens_a_second = args.gpu_flops * args.gpu_share / (2 * args.gpu_parameters) / args.gradients
    start, *_, most = series[BARE, LONG]
    a_token = (most["cpu_seconds"] - start["cpu_seconds"]) / (most["counts"]["tokens"] - start["counts"]["tokens"])
    print(f"\n| what | the whole corpus | a pool of {args.pool:.0%} | of the pool, on {args.workers} workers, hours |")
    print("| --- | --- | --- | --- |")

    def show(what: str, whole: float, unit: str, spread: bool = True) -> None:
        hours = f"{whole * args.pool / args.workers:,.2f}" if spread and unit.endswith("hours") else ""
        print(f"| {what} | {whole:,.1f} {unit} | {whole * args.pool:,.2f} {unit} | {hours} |")

    show("embed, the model", args.corpus_tokens / tokens_a_second / 3600, "GPU hours")
    show("embed, all else", args.corpus_tokens * a_token / 3600, "core hours")
    show("embeddings on disk", args.corpus_samples * row / 1e12, "TB")
    print(f"\n| command, over the pool of {args.pool:.0%} | core hours by its samples | by shards of the corpus |")
    print("| --- | --- | --- |")
    for command in COMMANDS:
        if command not in ("embed", BARE):
            by_samples = carried(series[command, "samples"], args.corpus_samples * args.pool)
            by_shards = carried(series[command, "shards"], args.corpus_shards)
            print(f"| {command} | {by_samples} | {by_shards} |")


def carried(lines: list[dict[str, Any]], work: float) -> str:
    """CPU hours beyond the start, at a work that was not measured; what they are under where growth was too little."""
    start, last = lines[0]["cpu_seconds"], lines[-1]
    if last["cpu_seconds"] <= GREW * start:
        return f"under {(GREW - 1) * start * work / work_of(last) / 3600:,.2f}"
    try:
        power = max(1.0, float(exponent(lines)))
    except ValueError:  # one point, which has no slope
        power = 1.0
    return f"{(last['cpu_seconds'] - start) * (work / work_of(last)) ** power / 3600:,.2f}"


def work_of(line: dict[str, Any]) -> int:
    """What grows."""
    return int(line["shards"] if line["grows"] == "shards" else line["documents"])


def exponent(lines: list[dict[str, Any]]) -> str:
    """Slope of log(CPU time beyond that of the first line) by log(work), over lines that took half as much again."""
    start = lines[0]["cpu_seconds"]
    grown = [line for line in lines[1:] if line["cpu_seconds"] > GREW * start]
    points = [(work_of(line), line["cpu_seconds"] - start) for line in grown]
    if len(points) < 2:
        return "too little to tell" if not points else f"one point, {points[0][0]:,}"
    work, cpu = np.log(np.asarray(points)).T
    return f"{np.polyfit(work, cpu, 1)[0]:.2f}"


if __name__ == "__main__":
    main()
