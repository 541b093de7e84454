"""What gradients cost: ``cptsel embed`` against forward + loss of the same model over the same batches.

    python benchmarks/embed.py                                # the sample data and its model of 4.3 M parameters
    python benchmarks/embed.py --model DIR --corpus 'GLOB'... # others
    python benchmarks/embed.py --only kernel                  # the first part alone

All figures are CPU seconds, user and system, of all threads. What is compared runs interleaved, in alternating order;
a ratio is that of one round, and the median, least and greatest over the rounds are printed. OpenMP threads that wait
for each other sleep (``OMP_WAIT_POLICY=passive``, unless the environment says otherwise). Threads that spin would count
the time that other programs made them wait as CPU time.

**Kernel.** Real windows in the batches that embed would make, a few taken from the whole range of lengths. For each
batch: *plain* forward + loss, as any evaluation loop has it (logits of the whole padded batch, ``cross_entropy``, no
gradient); *lean* forward + loss, whose loss is taken a cache-full of unpadded rows at a time, as our kernel does;
``HeadGradient.of_windows``; the same with exact norms; and the gradients of the body, and of both, whose backward pass
is to cost no more than 3 × plain together with the forward one. The ratio that is aimed at is gradients ÷ plain;
gradients ÷ lean says what the sketches alone add.

**Command.** CPU time of ``cptsel embed`` in a process of its own, without its start-up, which is the same for any
corpus: the command runs with ``--limit`` at ``--small`` and at ``--large`` rows a shard, and the difference is divided
by the same difference of a bare loop, plain forward + loss over the very batches, tokenised beforehand. So reading,
tokenising, cutting, hashing, sketching, Beam and the writing of Parquet all count. (Naming the shards by their hashes
falls under start-up; it costs a few nanoseconds a token.) Beside it stand the gradients of these batches alone, and
``BlockEmbedder.embed`` over the blocks, read beforehand, which tokenises, cuts and makes rows too: what the command
takes beyond that is its own overhead, of reading, Beam and writing.

**Fidelity.** On some of the windows, against head gradients that autograd makes: the standard deviation of the error of
all pairwise cosines, in units of 1/√k, which is what any seeded projection to k numbers errs by; the rank correlation
(Spearman) of the cosines; and the spread of the sketch's length around the exact norm. Beside ours stands the flat
CountSketch of the whole gradient, which nobody could afford: where the two agree, ranks are kept as well as k allows.
How well that is depends on how far the true cosines spread, which is printed too. Takes 4 · V · d bytes a window.

**Peer.** With ``--peer-python``, a Python that has ``bergson``: gradients of the body by both, of ``--windows`` of the
windows in batches by length, each against forward + loss of the same batches in its own process. ``bergson`` projects
each layer by itself, to ``--peer-dim`` squared numbers. Beside CPU time and bytes stands what choosing a tenth by the
sketches keeps of choosing by the exact gradients of the body, as in benchmarks/fidelity.py. Takes 4 bytes a parameter
and window.
"""

from __future__ import annotations

import os
import sys

# Python puts this file's folder first on its path, where select.py would be taken for the standard module of its name.
if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:
    sys.path.remove(here)

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, here and in the command

import argparse
import copy
import dataclasses
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, linear

from cptsel.pipeline.corpus.documents import DocumentBlock, ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.listing import list_inputs
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.corpus.types import BLOCK_BYTES
from cptsel.pipeline.embedding.block import BlockEmbedder, RowOptions
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.cutting import cut_block
from cptsel.pipeline.embedding.plan import ModelPlan, plan_model
from cptsel.pipeline.kernels.gradients.head import CHUNK_ELEMENTS
from cptsel.pipeline.model.batching import batches
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.body import BodyGradient
from cptsel.pipeline.model.gradients.head import HeadGradient
from cptsel.pipeline.model.gradients.head_body import HeadBodyGradient
from cptsel.pipeline.model.tokenizer import load_tokenizer

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
PERCENTILES = (1, 25, 50, 75, 99)
TARGETS = {"kernel": 1.12, "command": 1.10, "blocks": 1.10}
Batch = list[np.ndarray]  # the prefix and the ids of each window, int32
Padded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # input ids, labels (-100 at padding), lengths


def main() -> None:
    """Run the parts and print them."""
    args = parse_arguments()
    config = EmbedConfig(
        inputs=tuple(args.corpus),
        model=args.model,
        out="",
        device="cpu",
        sketch_dim=args.sketch_dim,
        threads=args.threads,
    )
    plan = plan_model(config)
    model = FrozenModel(plan.spec)
    print(f"{model.name}, {plan.facts['parameters'] / 1e6:.2f} M parameters, {args.threads} threads", flush=True)
    large = read_batches(config, plan, args.large)
    results: dict = {"model": plan.facts, "threads": args.threads, "tokens_per_batch": plan.tokens_per_batch}
    if "kernel" in args.only:
        results["kernel"] = kernel_part(model, spread(large, args.batches), args.rounds)
        print_kernel(results["kernel"])
    if "command" in args.only:
        small = read_batches(config, plan, args.small)
        results["command"] = command_part(model, plan, config, {args.small: small, args.large: large}, args)
        print_command(results["command"])
    if "fidelity" in args.only:
        windows = [window for batch in large for window in batch]
        picks = np.random.default_rng(0).choice(len(windows), min(args.windows, len(windows)), replace=False)
        results["fidelity"] = fidelity_part(model, [windows[i] for i in sorted(picks)])
        print_fidelity(results["fidelity"])
    if "peer" in args.only and args.peer_python:
        results["peer"] = peer_part(model, plan, [window for batch in large for window in batch], args)
        print_peer(results["peer"])
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = ["kernel", "command", "fidelity", "peer"]
    parser.add_argument("--model", default=str(SAMPLE / "tiny-lm"), help="folder of a causal LM")
    parser.add_argument("--corpus", nargs="+", metavar="GLOB", default=[str(SAMPLE / "old/*/*.jsonl.gz")])
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="parts to run (default all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=6, help="batches of a round of the kernel (default 6)")
    parser.add_argument("--sketch-dim", type=int, default=1024, help="length of the sketch (default 1024)")
    parser.add_argument("--small", type=int, default=2, help="rows a shard of the small run (default 2)")
    parser.add_argument("--large", type=int, default=60, help="rows a shard of the large run (default 60)")
    parser.add_argument("--windows", type=int, default=200, help="windows for fidelity (default 200)")
    parser.add_argument("--peer-python", metavar="PYTHON", help="a Python that has bergson, which is run beside ours")
    parser.add_argument("--peer-dim", type=int, nargs="+", default=[6, 16], help="its projections (default 6 16)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file as well")
    return parser.parse_args()


def read_batches(config: EmbedConfig, plan: ModelPlan, limit: int) -> list[Batch]:
    """The batches that embed makes of the first ``limit`` rows of every shard: a block's windows by length."""
    tokenizer = load_tokenizer(plan.spec.source)
    prefix = np.asarray(plan.prefix.ids, np.int32)
    found = []
    for path, block in read_blocks(config, limit):
        samples = cut_block(path, block, tokenizer, plan.prefix, plan.max_tokens).samples
        for batch in batches([len(sample.ids) for sample in samples], plan.tokens_per_batch):
            found.append([np.concatenate([prefix, samples[i].ids]) for i in batch])
    return found


def read_blocks(config: EmbedConfig, limit: int) -> list[tuple[str, DocumentBlock]]:
    """Path and documents of every block, of the first ``limit`` rows of every shard."""
    options = ReadOptions(text_field=config.text_field, block_bytes=config.block_bytes or BLOCK_BYTES, limit=limit)
    found = []
    for shard_id, (uri, path, size) in enumerate(list_inputs(config.inputs, None)[1]):
        shard = inventory(shard_id, uri, path, size, config.block_bytes or BLOCK_BYTES)
        blocks = (
            read_stream(shard, options)
            if shard.blocks is None
            else (read_block(shard, block, options) for block in shard.blocks)
        )
        found += [(path, block) for block in blocks]
    return found


def spread(found: list[Batch], count: int) -> list[Batch]:
    """``count`` batches from the whole range of lengths, evenly by rank."""
    ranked = sorted(found, key=lambda batch: len(batch[0]))
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked)))
    return [ranked[i] for i in sorted({round(place) for place in places})]


def pad(batch: Batch) -> Padded:
    """A batch as tensors, ready for a bare loop."""
    lengths = torch.tensor([len(row) - 1 for row in batch])
    ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.int64)
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(batch):
        ids[i, : len(row) - 1] = torch.from_numpy(row[:-1])
        labels[i, : len(row) - 1] = torch.from_numpy(row[1:])
    return ids, labels, lengths


@torch.inference_mode()
def plain_loss(model: FrozenModel, batch: Padded) -> torch.Tensor:
    """Token losses from whole logits."""
    ids, labels, lengths = batch
    logits = logits_of(model, hidden_states(model, ids, lengths))
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")


@torch.inference_mode()
def lean_loss(model: FrozenModel, batch: Padded) -> torch.Tensor:
    """The same losses from a cache-full of logits at a time, without padding."""
    ids, labels, lengths = batch
    real = labels >= 0
    rows, targets = hidden_states(model, ids, lengths)[real], labels[real]
    step = max(1, CHUNK_ELEMENTS["cpu"] // model.head.weight.shape[0])
    parts = zip(rows.split(step), targets.split(step), strict=True)
    return torch.cat([cross_entropy(logits_of(model, h), y, reduction="none") for h, y in parts])


def hidden_states(model: FrozenModel, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What the head reads; a mask only where there is padding, which is faster."""
    steps = ids.shape[1]
    mask = None if bool((lengths == steps).all()) else (torch.arange(steps) < lengths.unsqueeze(1)).long()
    return model.base(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state


def logits_of(model: FrozenModel, hidden: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """float32 logits, through the scale and soft-cap that the model has."""
    logits = linear(hidden, model.head.weight if weight is None else weight, model.head.bias).float()
    scale, cap = model.head.logit_map.scale, model.head.logit_map.softcap
    logits = logits * scale if scale != 1 else logits
    return logits if cap is None else cap * torch.tanh(logits / cap)


def kernel_part(model: FrozenModel, found: list[Batch], rounds: int) -> dict:
    """CPU seconds of every way over the batches, round by round."""
    exact = copy.copy(model)
    exact.spec = dataclasses.replace(model.spec, exact_norm=True)
    by_sketch, by_length, body = HeadGradient(model), HeadGradient(exact), BodyGradient(model)
    mixed = copy.copy(model)
    mixed.spec = dataclasses.replace(model.spec, mixing=(1.0, 1.0))
    both = HeadBodyGradient(mixed)
    padded = [pad(batch) for batch in found]
    ways: dict[str, Callable[[int], object]] = {
        "plain": lambda i: plain_loss(model, padded[i]),
        "lean": lambda i: lean_loss(model, padded[i]),
        "gradients": lambda i: by_sketch.of_windows(found[i]),
        "exact_norm": lambda i: by_length.of_windows(found[i]),
        "body": lambda i: body.of_windows(found[i]),
        "head+body": lambda i: both.of_windows(found[i]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    clock = Clock("the kernel", rounds + 1)
    for turn in range(-1, rounds):  # the first is a warm-up
        total = dict.fromkeys(ways, 0.0)
        for i in range(len(found)):
            for name in list(ways)[:: 1 if (turn + i) % 2 else -1]:
                total[name] += cpu_of(lambda way=ways[name], i=i: way(i))
        if turn >= 0:
            for name in ways:
                seconds[name].append(total[name])
        clock.tick()
    tokens = sum(len(row) - 1 for batch in found for row in batch)
    share = 1 - tokens / sum(ids.numel() for ids, _, _ in padded)
    ratios = {
        "gradients / plain": ratio(seconds["gradients"], seconds["plain"]),
        "gradients / lean": ratio(seconds["gradients"], seconds["lean"]),
        "exact_norm / plain": ratio(seconds["exact_norm"], seconds["plain"]),
        "body / plain": ratio(seconds["body"], seconds["plain"]),
        "head+body / plain": ratio(seconds["head+body"], seconds["plain"]),
        "exact_norm / lean": ratio(seconds["exact_norm"], seconds["lean"]),
    }
    return {"batches": len(found), "tokens": tokens, "padding": share, "cpu_s": seconds, "ratios": ratios}


class Clock:
    """Says on stderr, after the first of some equal rounds and then each half minute, how long a part will take."""

    def __init__(self, part: str, rounds: int) -> None:
        self.part, self.rounds, self.done = part, rounds, 0
        self.start, self.told = time.monotonic(), float("-inf")

    def tick(self) -> None:
        """A round is done."""
        self.done += 1
        now = time.monotonic()
        if self.done < self.rounds and now - self.told >= 30:
            self.told = now
            left = (now - self.start) / self.done * (self.rounds - self.done)
            print(f"{self.part}: about {left:,.0f} s left", file=sys.stderr, flush=True)


def cpu_of(call: Callable[[], object]) -> float:
    """CPU seconds of a call, all threads of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def ratio(upper: list[float], lower: list[float]) -> dict[str, float]:
    """Median, least and greatest of the rounds' ratios."""
    values = np.array(upper) / np.array(lower)
    return {"median": float(np.median(values)), "min": float(values.min()), "max": float(values.max())}


def command_part(
    model: FrozenModel, plan: ModelPlan, config: EmbedConfig, found: dict[int, list[Batch]], args: argparse.Namespace
) -> dict:
    """CPU seconds of the command and of the bare loop, at two sizes, round by round."""
    padded = {limit: [pad(batch) for batch in some] for limit, some in found.items()}
    blocks = {limit: read_blocks(config, limit) for limit in found}
    embedder = BlockEmbedder(plan.spec, RowOptions(plan.max_tokens, plan.tokens_per_batch, config.storage, ()))
    loops: dict[str, Callable[[int], object]] = {
        "bare": lambda limit: [plain_loss(model, batch) for batch in padded[limit]],
        "gradients": lambda limit: [embedder.gradients.of_windows(batch) for batch in found[limit]],
        "blocks": lambda limit: [embedder.embed(path, block) for path, block in blocks[limit]],
    }
    times: dict[str, dict[int, list[float]]] = {name: {limit: [] for limit in found} for name in ("command", *loops)}
    for loop in loops.values():
        loop(args.small)
    clock = Clock("the whole command", args.rounds)
    for turn in range(args.rounds):
        for limit in sorted(found, reverse=bool(turn % 2)):
            before = {name: cpu_of(lambda loop=loop, limit=limit: loop(limit)) for name, loop in loops.items()}
            times["command"][limit].append(cpu_of_command(config, limit))
            for name, loop in reversed(loops.items()):
                after = cpu_of(lambda loop=loop, limit=limit: loop(limit))
                times[name][limit].append((before[name] + after) / 2)
        clock.tick()
    tokens = {limit: sum(len(row) - 1 for batch in some for row in batch) for limit, some in found.items()}
    more = tokens[args.large] - tokens[args.small]
    spent = {name: np.subtract(some[args.large], some[args.small]) for name, some in times.items()}
    start_up = np.array(times["command"][args.small]) - spent["command"] * tokens[args.small] / more
    return {
        "tokens": more,
        "start_up_s": float(np.median(start_up)),
        **{f"{name}_s": some.tolist() for name, some in spent.items()},
        "ratio": ratio(spent["command"].tolist(), spent["bare"].tolist()),
        "of_gradients": ratio(spent["command"].tolist(), spent["gradients"].tolist()),
        "of_blocks": ratio(spent["command"].tolist(), spent["blocks"].tolist()),
    }


def cpu_of_command(config: EmbedConfig, limit: int) -> float:
    """CPU seconds of ``cptsel embed`` and its children, from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cptsel", "embed", *config.inputs, "--model", config.model]
        command += [
            "--threads",
            str(config.threads),
            "--limit",
            str(limit),
            "--sketch-dim",
            str(config.sketch_dim),
            "--out",
            str(Path(folder, "run")),
        ]
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{output.decode()}")
    return usage.ru_utime + usage.ru_stime


def fidelity_part(model: FrozenModel, windows: Batch) -> dict:
    """How true sketches are to exact head gradients."""
    rows: dict[str, list[np.ndarray]] = {"sketch": [], "validation": [], "flat": []}
    exact, kind = [], HeadGradient(model)
    weight = model.head.weight.detach().clone().float().requires_grad_()
    random = np.random.default_rng(0)
    buckets = random.integers(model.spec.sketch_dim, size=weight.numel())
    flips = random.choice([-1.0, 1.0], weight.numel())
    clock = Clock("fidelity", len(windows))
    for row in windows:
        result = kind.of_windows([row])
        rows["sketch"].append(result.sketch[0].numpy())
        rows["validation"].append(result.validation[0].numpy())
        ids = torch.from_numpy(row[None].astype(np.int64))
        with torch.no_grad():
            hidden = model.base(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[0]
        loss = cross_entropy(logits_of(model, hidden.float(), weight), ids[0, 1:], reduction="sum")
        exact.append(torch.autograd.grad(loss, weight)[0].flatten().numpy())
        rows["flat"].append(np.bincount(buckets, exact[-1] * flips, minlength=model.spec.sketch_dim))
        clock.tick()
    truth = np.stack(exact)
    lengths, cosines = np.linalg.norm(truth, axis=1), pairwise_cosines(truth)
    figures: dict = {"windows": len(windows), "cosine_percentiles": np.percentile(cosines, PERCENTILES).tolist()}
    for name, some in rows.items():
        values = np.stack(some)
        found = pairwise_cosines(values)
        figures[name] = {
            "k": values.shape[1],
            "cosine_error": float(np.std(found - cosines) * np.sqrt(values.shape[1])),
            "spearman": spearman(found, cosines),
            "norm_spread": float(np.std(np.linalg.norm(values, axis=1) / lengths)),
        }
    return figures


def peer_part(model: FrozenModel, plan: ModelPlan, windows: Batch, args: argparse.Namespace) -> list[dict]:
    """CPU time, bytes and fidelity of gradients of the body, by us and by bergson."""
    sys.path.append(here)
    from fidelity import Judge, compare, exact_grams, halves, sketches

    picks = np.random.default_rng(0).choice(len(windows), min(args.windows, len(windows)), replace=False)
    windows = [windows[i] for i in sorted(picks)]
    order = list(batches([len(row) for row in windows], plan.tokens_per_batch))
    padded = [pad([windows[i] for i in batch]) for batch in order]
    spec = dataclasses.replace(model.spec, gradient="body")
    ours = copy.copy(model)
    ours.spec = spec
    kind = BodyGradient(ours)
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(args.rounds):
        times["plain"].append(cpu_of(lambda: [plain_loss(model, batch) for batch in padded]))
        times["ours"].append(cpu_of(lambda: [kind.of_windows([windows[i] for i in batch]) for batch in order]))
    tokens = np.array([len(row) - 1 for row in windows])
    judge = {"kept": Judge(exact_grams(model, windows)[1], tokens, list(halves(len(windows), 40)), 0.1)}
    found = sketches(ours, windows, "body", args.sketch_dim, (1.0, 1.0))
    rows = [
        {
            "name": "cptsel, body",
            "numbers": args.sketch_dim,
            "seconds": float(np.median(times["ours"])),
            "ratio": ratio(times["ours"], times["plain"]),
            **compare(*found, judge, tokens),
        }
    ]
    for dim in args.peer_dim:
        held = peer_sketches(plan.spec.source, windows, order, dim, args)
        kept = compare(held["sketches"], held["sketches"], judge, tokens)
        rows.append(
            {
                "name": f"bergson, {dim} x {dim} a layer",
                "numbers": held["sketches"].shape[1],
                "seconds": float(np.median(held["seconds"])),
                "ratio": ratio(held["seconds"].tolist(), held["plain"].tolist()),
                **kept,
            }
        )
    return rows


def peer_sketches(
    source: str, windows: Batch, order: list[list[int]], dim: int, args: argparse.Namespace
) -> dict[str, np.ndarray]:
    """What bergson makes of the windows, in a process of its own."""
    number = np.empty(len(windows), np.int64)
    for place, batch in enumerate(order):
        number[batch] = place
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "windows.npz"), Path(folder, "sketches.npz")
        lengths = [len(row) for row in windows]
        np.savez(given, ids=np.concatenate(windows), lengths=lengths, batches=number)
        script = str(Path(here, "bergson_peer.py"))
        command = [args.peer_python, script, source, str(given), str(made), "per_module", str(dim), str(args.rounds)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with np.load(made) as held:
            return dict(held)


def pairwise_cosines(rows: np.ndarray) -> np.ndarray:
    """Cosines of all pairs i < j, flat."""
    gram = rows @ rows.T
    lengths = np.sqrt(np.diag(gram))
    return (gram / lengths / lengths[:, None])[np.triu_indices(len(rows), 1)]


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of ranks; there are no ties to speak of."""
    ranks = [np.argsort(np.argsort(values)) for values in (left, right)]
    return float(np.corrcoef(*ranks)[0, 1])


def show(value: dict[str, float]) -> str:
    """A ratio with its range."""
    return f"{value['median']:.3f} ({value['min']:.3f} to {value['max']:.3f})"


def print_kernel(part: dict) -> None:
    """The first part as text."""
    print(f"\nKernel: {part['batches']} batches, {part['tokens']} tokens, {part['padding']:.1%} padding")
    for name, times in part["cpu_s"].items():
        print(f"  {name:<12} {1e6 * np.median(times) / part['tokens']:7.1f} CPU µs a token")
    for name, value in part["ratios"].items():
        target = f", to be at most {TARGETS['kernel']}" if name == "gradients / plain" else ""
        print(f"  {name:<18} {show(value)}{target}", flush=True)


def print_command(part: dict) -> None:
    """The second part as text."""
    print(f"\nCommand: {part['tokens']} tokens, beside a start-up of {part['start_up_s']:.1f} CPU s")
    names = {"embed": "command_s", "bare loop": "bare_s", "gradients": "gradients_s", "blocks": "blocks_s"}
    for name, key in names.items():
        print(f"  {name:<12} {1e6 * np.median(part[key]) / part['tokens']:7.1f} CPU µs a token")
    print(f"  {'embed / bare loop':<18} {show(part['ratio'])}, to be at most {TARGETS['command']}")
    print(f"  {'embed / gradients':<18} {show(part['of_gradients'])}")
    print(f"  {'embed / blocks':<18} {show(part['of_blocks'])}, to be at most {TARGETS['blocks']}", flush=True)


def print_fidelity(part: dict) -> None:
    """The third part as text."""
    shown = ", ".join(f"{value:.3f}" for value in part["cosine_percentiles"])
    print(f"\nFidelity: {part['windows']} windows; percentiles {PERCENTILES} of their exact cosines {shown}")
    print(f"  {'':<12} {'k':>6} {'error·√k':>9} {'Spearman':>9} {'spread of norms':>16}")
    for name in ("sketch", "flat", "validation"):
        row = part[name]
        figures = f"{row['cosine_error']:9.3f} {row['spearman']:9.4f} {row['norm_spread']:16.4f}"
        print(f"  {name:<12} {row['k']:6} {figures}", flush=True)


def print_peer(part: list[dict]) -> None:
    """The fourth part as text."""
    print("\nPeer: gradients of the body")
    for row in part:
        kept = {what: "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["kept"][what]) for what in row["kept"]}
        print(f"  {row['name']:<26} {row['numbers']:6} numbers, {show(row['ratio'])} x plain, ", end="")
        print(f"coverage kept {kept['coverage']}, residual {kept['matching']}", flush=True)


if __name__ == "__main__":
    main()
