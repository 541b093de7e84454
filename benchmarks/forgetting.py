"""How much a model forgets while it learns a new domain, by what is replayed: one arm a way of choosing.

    python benchmarks/forgetting.py --out evidence --quick
    python benchmarks/forgetting.py --out evidence --corpus CORPUS --model MODEL --seeds 5 --mixed --jobs 2

The old corpus is embedded and chosen from by cptsel's own commands; the model then goes on training on the new domain
and the replay, which the trainer takes from the manifest (``continual.py``). Every method has the same tokens of new
and old text, steps and rates. What is measured is the loss of held-out text in bits per byte, before and after: of
every old domain, of the new one and of one that is related to it. A seed decides the pool, the projection, the choice,
the order and the training. Each run is one line of ``OUT/results.jsonl``; those that are there are not made again.
``forgetting_report.py`` makes tables of these lines.
"""

from __future__ import annotations

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)
    sys.path.append(here)

import argparse
import contextlib
import glob
import io
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from continual import Recipe, Replay, Texts, bits_per_byte, pack, read_held_out, read_manifest, read_texts, train
from forgetting_arms import ARMS, ONLY, RUNS, Arm, arm_of
from forgetting_tries import Pool
from transformers import AutoModelForCausalLM, AutoTokenizer

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
RESULTS = "results.jsonl"
PLACE = ("shard_id", "row_index", "token_start", "token_count")  # of a sample in its corpus
QUICK = ("none", "random-half", "random", "random-2", "random-4", "cover", "demand", "craig-repeat")


@dataclass(frozen=True)
class Setting:
    """What all runs of a benchmark share."""

    out: str
    model: str
    old: str
    new: str
    held_out_old: str
    held_out_new: str
    related: str | None
    shares: str | None
    pool: str
    share: float
    recipe: Recipe
    held_out_bytes: int
    device: str
    threads: int

    @property
    def name(self) -> str:
        """Of the new domain: the name of its held-out file."""
        return Path(self.held_out_new).name.partition(".")[0]

    def budget(self, arm: Arm) -> int:
        """Tokens that an arm replays."""
        return round(self.recipe.new_tokens * (1.0 if arm.budget is None else arm.budget * self.share))


def main() -> None:
    """Embed, choose, train, measure; a line a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", required=True, help="folder of runs, manifests and results")
    parser.add_argument("--corpus", default=str(SAMPLE), help="folder with old/, new/ and heldout/ of JSONL files")
    parser.add_argument("--model", default=str(SAMPLE / "tiny-lm"))
    parser.add_argument("--new", help="glob of the new domain; by default all below new/")
    parser.add_argument("--held-out-new", help="its held-out file; by default the one in heldout/new")
    parser.add_argument("--related", help="held-out file of a domain that is related to the new one")
    parser.add_argument("--shares", help="file of shares of the domains, for the arms that end in -fitted")
    parser.add_argument("--pool", default="2000000 tokens", help="of the old corpus, as cptsel embed takes it")
    parser.add_argument("--share", type=float, default=0.05, help="tokens of the replay, as a share of the new ones")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--lr", type=float, default=Recipe.lr)
    parser.add_argument("--late", type=float, default=Recipe.late, help="above 1, more of the replay is played late")
    parser.add_argument("--cosine", action="store_true", help="the learning rate falls to a tenth along half a cosine")
    parser.add_argument("--held-out-bytes", type=int, default=40_000, help="of each domain that are measured")
    parser.add_argument("--arms", nargs="*", help=f"of: none, {', '.join(ARMS)}, {ONLY}DOMAIN")
    parser.add_argument("--skip", nargs="*", default=(), help="arms to leave out")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mixed", action="store_true", help="train and measure in bfloat16 where autocast takes it")
    parser.add_argument("--quick", action="store_true", help="one seed, some arms, few steps: a try")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.steps, args.arms, args.held_out_bytes = 1, 25, args.arms or QUICK, 8_000
        args.pool = "200000 tokens"
    held_out_new = args.held_out_new or only(f"{args.corpus}/heldout/new/*.jsonl*")
    setting = Setting(
        out=args.out,
        model=args.model,
        old=f"{args.corpus}/old/*/*.jsonl*",
        new=args.new or f"{args.corpus}/new/*/*.jsonl*",
        held_out_old=f"{args.corpus}/heldout/old/*.jsonl*",
        held_out_new=held_out_new,
        related=args.related,
        shares=args.shares,
        pool=args.pool,
        share=args.share,
        recipe=Recipe(steps=args.steps, lr=args.lr, mixed=args.mixed, late=args.late, cosine=args.cosine),
        held_out_bytes=args.held_out_bytes,
        device=args.device,
        threads=max(1, (os.cpu_count() or 1) // args.jobs),
    )
    chosen = [name for name in args.arms or ("none", *ARMS) if name not in args.skip]
    if unknown := sorted(name for name in {*chosen} - {"none", *ARMS} if not name.startswith(ONLY)):
        parser.error(f"no arms of these names: {', '.join(unknown)}")
    run_all(setting, chosen, range(args.first_seed, args.first_seed + args.seeds), args.jobs)


def only(pattern: str) -> str:
    """The one file that matches."""
    found = glob.glob(pattern)
    if len(found) != 1:
        raise SystemExit(f"{len(found)} files match {pattern}; name one by --held-out-new")
    return found[0]


def run_all(setting: Setting, arms: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    """Make the runs that are not among the results, embeddings first."""
    there, recipe = len(new_rows(setting.model, setting.new, setting.recipe.length)), setting.recipe
    if there < recipe.steps * recipe.rows:
        raise SystemExit(
            f"{setting.new}: {there} rows of {recipe.length} tokens, and {recipe.steps} steps take "
            f"{recipe.steps * recipe.rows}; give fewer --steps"
        )
    done = read_results(setting)
    wanted = [(seed, name) for seed in seeds for name in arms if (seed, name) not in done]
    embeddings = {(seed, run): None for seed, name in wanted for run in runs_of(name)}
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):  # glibc then keeps the memory of large tensors
        os.environ.setdefault(name, str(1 << 32))
    failed: list[str] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(embed, setting, seed, run) for seed, run in embeddings]):
            if error := future.exception():
                failed.append(str(error))
        results = Path(setting.out) / RESULTS
        for future in as_completed([pool.submit(one_run, setting, seed, name) for seed, name in wanted]):
            if error := future.exception():
                failed.append(str(error))
                continue
            line = future.result()
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            rise = np.mean([line["after"][domain] - line["before"][domain] for domain in line["before"]])
            learnt = line["new_before"] - line["new_after"]
            print(f"{line['arm']:<28}{line['seed']:>3}{rise:>9.4f} forgotten{learnt:>9.4f} learnt", flush=True)
    if failed:
        raise SystemExit("\n".join([*failed, f"{len(failed)} of {len(embeddings) + len(wanted)} tasks failed"]))


def read_results(setting: Setting) -> set[tuple[int, str]]:
    """Seed and arm of every line that is there; what a killed call began to write is left behind.

    Raises:
        SystemExit: the lines are of other settings.
    """
    path = Path(setting.out) / RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return set()
    whole, _, torn = path.read_text().rpartition("\n")
    if torn:
        path.write_text(whole + "\n" if whole else "")
    lines = [json.loads(line) for line in whole.splitlines()]
    if any(line["setting"] != facts(setting) for line in lines):
        raise SystemExit(f"{path} has runs of other settings; choose another --out")
    return {(line["seed"], line["arm"]) for line in lines}


#: Settings that lines of earlier runs lack, and what they were then.
SINCE = {"late": Recipe.late, "cosine": Recipe.cosine}


def facts(setting: Setting) -> dict[str, Any]:
    """What decides the figures."""
    found = {
        "model": Path(setting.model).name,
        "new": setting.name,
        "related": setting.related and Path(setting.related).name.partition(".")[0],
        "pool": setting.pool,
        "share": setting.share,
        "held_out_bytes": setting.held_out_bytes,
        **asdict(setting.recipe),
    }
    return {name: value for name, value in found.items() if value != SINCE.get(name, ...)}


def runs_of(name: str) -> tuple[str, ...]:
    """Embedding runs that an arm needs."""
    return () if name == "none" or arm_of(name).generated else arm_of(name).runs


def embed(setting: Setting, seed: int, run: str) -> None:
    """Make an embedding run, unless it is there."""
    out = Path(setting.out) / "runs" / str(seed) / run
    mixed = replay_beside(setting, seed) if "{mixed}" in RUNS[run] else ""
    options = [option.format(new=setting.new, mixed=mixed) for option in RUNS[run]]
    corpus = [setting.old, "--pool", setting.pool]
    common = ["--group-by", "source", "--id-field", "id"]
    if "--max-tokens" not in options:
        common += ["--max-tokens", str(setting.recipe.length)]
    where = [
        "--device",
        setting.device,
        "--dtype",
        "float32",
        "--threads",
        str(setting.threads),
        "--seed",
        str(seed),
        "--out",
        str(out),
    ]
    cptsel("embed", *corpus, "--model", setting.model, *common, *options, *where)


def replay_beside(setting: Setting, seed: int) -> str:
    """A file of old documents, drawn at random, as large beside the new domain's as the replay will be."""
    path = Path(setting.out) / "mixed" / f"{seed}.jsonl"
    if not path.exists():
        left = setting.share * sum(len(text.encode()) for name in glob.glob(setting.new) for text in read_texts(name))
        texts = [text for name in sorted(glob.glob(setting.old)) for text in read_texts(name)]
        drawn = []
        for i in np.random.default_rng([seed, 3]).permutation(len(texts)):
            drawn.append(texts[i])
            if (left := left - len(texts[i].encode())) <= 0:
                break
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in drawn))
    return str(path)


def cptsel(*arguments: str) -> None:
    """Run a command of cptsel in this process.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    from cptsel.cli.main import main as command

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command(list(arguments))
    if code:
        raise RuntimeError(f"cptsel {' '.join(arguments)}\n{said.getvalue()}")


@cache
def texts_of(model: str) -> tuple[Texts, int, int]:
    """Tokenizer with documents, the token before a window, and the one after a document."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return Texts(tokenizer), prefix, tokenizer.eos_token_id


@cache
def new_rows(model: str, pattern: str, length: int) -> np.ndarray:
    """The new domain, joined and cut."""
    return pack(new_documents(model, pattern), texts_of(model)[2], length)


@cache
def new_documents(model: str, pattern: str) -> list[np.ndarray]:
    """Token ids of the new domain's documents."""
    texts = texts_of(model)[0]
    return [texts.encode(text) for path in sorted(glob.glob(pattern)) for text in read_texts(path)]


@cache
def corpus_bytes(pattern: str) -> dict[str, int]:
    """UTF-8 bytes of the old corpus by domain, the folder that a shard lies in."""
    found: dict[str, int] = {}
    for path in glob.glob(pattern):
        size = sum(len(text.encode()) for text in read_texts(path))
        domain = Path(path).parent.name
        found[domain] = found.get(domain, 0) + size
    return dict(sorted(found.items()))


@cache
def held_out(model: str, pattern: str, length: int, most: int) -> Any:
    """As of ``read_held_out``, kept."""
    texts, prefix, _ = texts_of(model)
    return read_held_out(pattern, texts, prefix, length, most)


@cache
def losses_before(model: str, device: str, pattern: str, length: int, most: int, mixed: bool) -> dict[str, float]:
    """Held-out losses of the model as it was given."""
    return bits_per_byte(load(model, device), held_out(model, pattern, length, most), mixed)


def load(model: str, device: str) -> Any:
    """The model in float32."""
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)


def one_run(setting: Setting, seed: int, name: str) -> dict[str, Any]:
    """Choose, train and measure: one line of the results."""
    torch.set_num_threads(setting.threads)
    torch.manual_seed(seed)
    began = time.monotonic()
    texts, prefix, _ = texts_of(setting.model)
    recipe, replay = setting.recipe, Replay()
    chosen: dict[str, Any] = {}
    if name != "none":
        replay, chosen = replay_of(setting, seed, name, arm_of(name), texts)
    selected = time.monotonic()
    model = load(setting.model, setting.device)
    losses = train(model, new_rows(setting.model, setting.new, recipe.length), replay, prefix, recipe, seed)
    line = {"arm": name, "seed": seed, "setting": facts(setting), "replay_tokens": replay.tokens}
    line |= {"replay_windows": len(replay.windows), "chosen": chosen, "train_loss": [losses[0], losses[-1]]}
    line["corpus_bytes"] = corpus_bytes(setting.old)
    for field, pattern in (("", setting.held_out_old), ("new_", setting.held_out_new), ("related_", setting.related)):
        if pattern is None:
            continue
        most = setting.held_out_bytes if field == "" else 5 * setting.held_out_bytes
        before = losses_before(setting.model, setting.device, pattern, recipe.length, most, recipe.mixed)
        after = bits_per_byte(model, held_out(setting.model, pattern, recipe.length, most), recipe.mixed)
        single = field != ""
        line[f"{field}before"] = next(iter(before.values())) if single else before
        line[f"{field}after"] = next(iter(after.values())) if single else after
    line["seconds"] = {"choose": round(selected - began, 2), "train": round(time.monotonic() - selected, 2)}
    return line


def replay_of(
    setting: Setting, seed: int, name: str, arm: Arm, texts: Texts, history: Sequence[str] = ()
) -> tuple[Replay, dict[str, Any]]:
    """What an arm replays, and what its manifest says of it; ``history``: manifests of the rounds before."""
    budget = setting.budget(arm)
    if arm.generated:
        return generated(setting, budget), {}
    runs = [str(Path(setting.out) / "runs" / str(seed) / run) for run in arm.runs]
    out = Path(setting.out) / "replays" / str(seed) / name
    options = [word.replace("_", " ").format(shares=setting.shares) for word in arm.select.split()]
    options += [word for before in history for word in ("--history", before)]
    if arm.pick is None:
        options += ["--budget", f"{budget} tokens"]
    else:
        left_out = out.with_suffix(".exclude")
        ids, pool = open_pool(setting, runs, texts)
        picks = set(arm.pick(pool, budget, np.random.default_rng([seed, 2])))
        left_out.parent.mkdir(parents=True, exist_ok=True)
        left_out.write_text("".join(f"{name}\n" for i, name in enumerate(ids) if i not in picks))
        runs = runs[-1:]
        options = ["--method", "full", "--budget", "100%", "--realisation", "none", "--exclude", str(left_out)]
    cptsel("select", *runs, *options, "--seed", str(seed), "--overwrite", "--out", str(out))
    header = json.loads((out / "manifest.json").read_text())
    chosen = {"tokens": header["totals"]["selected_tokens"], "domains": tokens_by_domain(out)}
    return read_manifest(str(out), texts), chosen


def tokens_by_domain(replay: Path) -> dict[str, int]:
    """Tokens that a manifest plays of each domain, the folder that a shard lies in."""
    uris = {shard["shard_id"]: shard["uri"] for shard in pq.read_table(replay / "shards.parquet").to_pylist()}
    found: dict[str, int] = {}
    for row in pq.read_table(replay / "samples", columns=["shard_id", "token_count", "repeat"]).to_pylist():
        domain = Path(uris[row["shard_id"]]).parent.name
        found[domain] = found.get(domain, 0) + row["token_count"] * row["repeat"]
    return dict(sorted(found.items()))


def open_pool(setting: Setting, runs: Sequence[str], texts: Texts) -> tuple[list[str], Pool]:
    """Names of the samples of a pool that was embedded once or several times, and what a try may look at."""
    table = pq.read_table(f"{runs[-1]}/embeddings")
    names = ("n_tokens", "loss_sum", "base_loss_sum", "source", "doc_key")
    scalars = [name for name in names if name in table.column_names]
    uris = {shard["shard_id"]: shard["uri"] for shard in pq.read_table(f"{runs[-1]}/shards.parquet").to_pylist()}

    def gradients(run: str) -> np.ndarray:
        found = pq.read_table(f"{run}/embeddings", columns=["direction", "sketch_norm", "n_tokens"])
        direction = np.stack(found["direction"].to_numpy(zero_copy_only=False)).astype(np.float32)
        return direction * (found["sketch_norm"].to_numpy() / found["n_tokens"].to_numpy())[:, None].astype(np.float32)

    def windows() -> list[np.ndarray]:
        places = zip(*(table[name].to_pylist() for name in PLACE), strict=True)
        return [texts.ids(uris[shard], row)[start : start + count] for shard, row, start, count in places]

    return table["sample_id"].to_pylist(), Pool(
        rows={name: np.asarray(table[name].to_pylist()) for name in scalars},
        gradients=[partial(gradients, run) for run in runs],
        windows=windows,
        new=lambda: new_documents(setting.model, setting.new),
    )


@torch.inference_mode()
def generated(setting: Setting, budget: int) -> Replay:
    """Text that the model itself writes after the token that begins a document, at temperature 1."""
    _, prefix, _ = texts_of(setting.model)
    model, windows = load(setting.model, setting.device).eval(), []
    while sum(map(len, windows)) < budget:
        begin = torch.full((64, 1), prefix, device=setting.device)
        found = model.generate(
            begin, attention_mask=torch.ones_like(begin), do_sample=True, top_k=0, max_length=setting.recipe.length + 1
        )
        for row in found[:, 1:].cpu().numpy():
            if sum(map(len, windows)) < budget:
                windows.append(row)
    return Replay(windows, [1.0] * len(windows))


if __name__ == "__main__":
    main()
