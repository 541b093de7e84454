"""Gradient matching against the procedure of CORDS, scikit-learn's OMP, random choices and CRAIG, on gradients of text.

    python benchmarks/matching.py --corpus 'OLD/*/*.jsonl.gz' --new 'NEW/*/*.jsonl.gz' --cache FOLDER
    python benchmarks/matching.py --rows 5000 --picks 50 500 --cache FOLDER       # the sample data, some minutes

Windows of at most 64 tokens of the old corpus are embedded with two independent sketches of 256 numbers. Every method
sees the first (``gradmatch`` and ``gradient-coreset`` choose figures by the second, as ``cptsel select`` does) and runs
in a process of its own. What is measured is ‖Σ_i g_i − Σ_j u_j g_j‖ / ‖Σ_i g_i‖: on the sketch that was fitted, on the
second, on the TRUE gradient of the LM head, never sketched, and on that at a LATER checkpoint, which is the same model
after ``--steps`` steps of AdamW along the new domain. Least squares shrinks what it can't match, down to weights that
add up to a small part of the corpus; so the last two stand there twice more: under the *best* scale that there is,
which tells how far the directions are apart, and *scaled* to Σ u n = Σ n, the tokens of the corpus, as the weights of a
manifest are. The target's own noise depends on the data, and with it what random choices do; it is printed first.

``cords`` is our own plain writing of what GRAD-MATCH does in the CORDS library on a CPU: OMP by the largest inner
product, all weights solved anew in each step (ridge λ, toward 0), the most negative atom dropped until none is, an end
at a relative residual of 1e-4 or where an atom comes up again. Rows are scaled to a mean square of 1, so that its λ
means something. CPU seconds are user and system; embedding takes about 1/40 s a window, and ``--cache`` keeps it.
"""

from __future__ import annotations

import os
import sys

# Python puts this file's folder first on its path, where select.py would be taken for the standard module of its name.
if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:
    sys.path.remove(here)
sys.path.append(here)

import argparse
import json
import resource
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
Picked = tuple[np.ndarray, np.ndarray]  # rows and weights u


def random_draw(g: np.ndarray, v: np.ndarray, n: np.ndarray, m: int, seed: int = 0) -> Picked:
    """Uniform, without replacement."""
    return np.random.default_rng([m, seed]).choice(len(g), m, replace=False), np.full(m, len(g) / m)


def sklearn_omp(g: np.ndarray, v: np.ndarray, n: np.ndarray, m: int) -> Picked:
    """scikit-learn's OMP, whose weights may be negative and whose atoms are at most the sketch's numbers."""
    from sklearn.linear_model import orthogonal_mp

    x = orthogonal_mp(g.T.astype(np.float64), g.sum(axis=0, dtype=np.float64), n_nonzero_coefs=min(m, g.shape[1]))
    return np.flatnonzero(x), x[x != 0]


def cords(g: np.ndarray, m: int, ridge: float) -> Picked:
    """The procedure of CORDS; see above."""
    g = g / np.sqrt((g.astype(np.float64) ** 2).sum(axis=1).mean()).astype(np.float32)
    target = g.sum(axis=0)
    residual, picks, u = target, [], np.zeros(0)
    for _ in range(m):
        if np.linalg.norm(residual) / np.linalg.norm(target) < 1e-4:
            break
        j = int(np.argmax(g @ residual))
        if j in picks:
            break
        picks.append(j)
        while True:
            atoms = g[picks].astype(np.float64)
            u = np.linalg.lstsq(atoms @ atoms.T + ridge * np.eye(len(picks)), atoms @ target, rcond=None)[0]
            if u.min() >= 0:
                break
            del picks[int(u.argmin())]
        residual = (target - u @ atoms).astype(np.float32)
    return np.array(picks), u


def matched(g: np.ndarray, v: np.ndarray, n: np.ndarray, m: int, *, even: bool = False) -> Picked:
    """Ours, as ``cptsel select`` calls it: by the root of the tokens, which are one more coordinate."""
    from cptsel.pipeline.kernels.matching.gradmatch import match
    from cptsel.pipeline.kernels.matching.mass import tokens_of_atoms, with_mass

    mass, tokens = float(n.sum()), tokens_of_atoms(n, even=even)
    (g, target), (v, goal) = (with_mass(x, n, x.sum(axis=0, dtype=np.float64), mass, even=even) for x in (g, v))
    result = match(
        g, n / tokens, n, m, validation=v, target=target, validation_target=goal, counts=tokens, uniform_weights=even
    )
    print(f"    {result.parts} parts, ridge {result.ridge:g}", file=sys.stderr)
    return result.picks, result.u * (tokens / n)[result.picks]


def craig_counts(g: np.ndarray, v: np.ndarray, n: np.ndarray, m: int) -> Picked:
    """CRAIG: each pick stands for its cluster's tokens."""
    from cptsel.pipeline.kernels.coverage.craig import craig

    result = craig((g / n[:, None]).astype(np.float32), n.astype(np.float64), n, m)
    return result.picks, result.cluster_mass / n[result.picks]


Method = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Picked]
#: What stands as ``random`` in the table: the means of their figures.
DRAWS: dict[str, Method] = {f"random {seed}": partial(random_draw, seed=seed) for seed in range(4)}
METHODS: dict[str, Method] = DRAWS | {
    "sklearn-omp": sklearn_omp,
    "cords-0": lambda g, v, n, m: cords(g, m, 0.0),
    "cords-.5": lambda g, v, n, m: cords(g, m, 0.5),
    "gradmatch": matched,
    "gradient-coreset": lambda g, v, n, m: matched(g, v, n, m, even=True),
    "craig": craig_counts,
}


def main() -> None:
    """Embed or read the cache, run the methods, measure and print."""
    args = parse_arguments()
    cache = Path(args.cache)
    if args.child:
        run_child(args.child, cache, args.picks[0])
        return
    prepare(args, cache)
    g, v, _ = read_sketches(cache)
    length = float(np.linalg.norm(np.load(cache / "true-0.npy")))
    noise = float(np.linalg.norm(g - g.mean(axis=0), axis=1) @ np.linalg.norm(g - g.mean(axis=0), axis=1)) ** 0.5
    facts = {"rows": len(g), "dim": g.shape[1], "target_norm": length, "target_noise": noise}
    print(f"{len(g)} rows, ‖target‖ {length:.4g}, its noise {noise:.4g}", flush=True)
    results = []
    for m in args.picks:
        for name in METHODS if args.only is None else [n for n in METHODS if n.split()[0] in args.only]:
            results.append(call_child(name, args, m))
    measure(results, cache, g, v, args)
    results = average_draws(results)
    print_table(results)
    if args.json:
        Path(args.json).write_text(json.dumps({"facts": facts, "results": results}, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=str(SAMPLE / "tiny-lm"), help="folder of a small causal LM")
    parser.add_argument("--corpus", nargs="+", metavar="GLOB", default=[str(SAMPLE / "old/*/*.jsonl.gz")])
    parser.add_argument("--new", nargs="+", metavar="GLOB", default=[str(SAMPLE / "new/*/*.jsonl.gz")])
    parser.add_argument("--cache", required=True, metavar="FOLDER", help="embeddings and checkpoints; reused if there")
    parser.add_argument("--rows", type=int, default=50_000, help="windows (default 50000)")
    parser.add_argument("--documents", type=int, default=200, help="documents read of each shard (default 200)")
    parser.add_argument("--dim", type=int, default=256, help="numbers of each sketch (default 256)")
    parser.add_argument("--max-tokens", type=int, default=64, help="tokens of a window (default 64)")
    parser.add_argument("--steps", type=int, default=40, help="steps to the later checkpoint (default 40)")
    parser.add_argument("--picks", type=int, nargs="+", default=[500, 5_000])
    names = ["random", *list(METHODS)[len(DRAWS) :]]
    parser.add_argument("--only", nargs="+", choices=names, help="methods (default all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file as well")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(args: argparse.Namespace, cache: Path) -> None:
    """Fill the cache: windows, sketches, true sums at both checkpoints and the later one's weights."""
    import text_gradients as text
    import torch

    cache.mkdir(parents=True, exist_ok=True)
    if (cache / f"true-{args.steps}.npy").exists():
        return
    model = text.load(args.model, args.max_tokens, args.dim, args.threads)
    windows = text.read_windows(args.corpus, model, args.max_tokens, args.documents)
    if len(windows) < args.rows:
        sys.exit(f"only {len(windows)} windows for --rows {args.rows}: give more with --documents or --corpus")
    keep = np.sort(np.random.default_rng(0).permutation(len(windows))[: args.rows])
    windows = [windows[i] for i in keep]
    np.savez(cache / "windows.npz", ids=np.concatenate(windows), lengths=[len(window) for window in windows])
    everything = np.ones((1, len(windows)))
    print("sketches …", file=sys.stderr)
    g, v = text.sketches(model, windows)
    np.savez(cache / "sketches.npz", g=g, v=v)
    print("the true gradient …", file=sys.stderr)
    np.save(cache / "true-0.npy", text.gradient_sums(model, windows, everything)[0])
    print("the later checkpoint and its gradient …", file=sys.stderr)
    new = text.read_windows(args.new, model, 256, 300)
    text.train(model, new, args.steps, batch=8, rate=3e-4, seed=args.steps)
    torch.save(model.model.state_dict(), cache / f"model-{args.steps}.pt")
    np.save(cache / f"true-{args.steps}.npy", text.gradient_sums(model, windows, everything)[0])


def read_windows(cache: Path) -> list[np.ndarray]:
    """The windows' ids."""
    with np.load(cache / "windows.npz") as file:
        return np.split(file["ids"], np.cumsum(file["lengths"])[:-1])


def read_sketches(cache: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both sketches and predicted tokens."""
    with np.load(cache / "sketches.npz") as file, np.load(cache / "windows.npz") as windows:
        return file["g"], file["v"], windows["lengths"] - 1


def call_child(name: str, args: argparse.Namespace, m: int) -> dict:
    """Run one method in a process of its own."""
    print(f"{name}, {m} picks …", file=sys.stderr)
    command = [sys.executable, __file__, "--child", name, "--cache", args.cache, "--picks", str(m)]
    threads = {f"{library}_NUM_THREADS": str(args.threads) for library in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | threads, check=True)
    return {"method": name, "budget": m} | json.loads(done.stdout.splitlines()[-1])


def run_child(name: str, cache: Path, m: int) -> None:
    """Run a method, after a small run that loads and warms what it needs."""
    g, v, n = read_sketches(cache)
    METHODS[name](g[:300].copy(), v[:300].copy(), n[:300], 5)
    start = time.process_time()
    picks, u = METHODS[name](g, v, n, m)
    seconds = time.process_time() - start
    print(json.dumps({"cpu_s": seconds, "peak_mb": peak_memory(), "rows": picks.tolist(), "weights": u.tolist()}))


def peak_memory() -> float:
    """Peak resident memory of this process in MB.

    Linux carries ``ru_maxrss`` over from the parent through exec, so the process's own high-water mark is read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    scale = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def measure(results: list[dict], cache: Path, g: np.ndarray, v: np.ndarray, args: argparse.Namespace) -> None:
    """Put residuals and atoms into the results, instead of the picks."""
    import text_gradients as text
    import torch

    weights = np.zeros((len(results), len(g)))
    for row, result in zip(weights, results, strict=True):
        row[result.pop("rows")] = result.pop("weights")
    windows = read_windows(cache)
    model = text.load(args.model, args.max_tokens, args.dim, args.threads)
    true = text.gradient_sums(model, windows, weights)
    model.model.load_state_dict(torch.load(cache / f"model-{args.steps}.pt", weights_only=True))
    later = text.gradient_sums(model, windows, weights)
    tokens = read_sketches(cache)[2].astype(np.float64)
    goals = [np.load(cache / f"true-{step}.npy") for step in (0, args.steps)]
    for i, (result, u) in enumerate(zip(results, weights, strict=True)):
        scale = tokens.sum() / (u @ tokens)
        result["atoms"] = int((u != 0).sum())
        result["mass"] = 1 / scale
        for name, rows in (("sketch", g), ("validation", v)):
            goal = rows.sum(axis=0, dtype=np.float64)
            result[name] = float(np.linalg.norm(goal - u @ rows) / np.linalg.norm(goal))
        for name, goal, sums in (("true", goals[0], true[i]), ("later", goals[1], later[i])):
            result[name] = float(np.linalg.norm(goal - sums) / np.linalg.norm(goal))
            result[f"{name}_scaled"] = float(np.linalg.norm(goal - scale * sums) / np.linalg.norm(goal))
            cosine = float(np.vdot(goal, sums) / (np.linalg.norm(goal) * np.linalg.norm(sums)))
            result[f"{name}_best"] = (1 - cosine**2) ** 0.5


def average_draws(results: list[dict]) -> list[dict]:
    """One result of all random choices of a budget: the means of their figures."""
    drawn: dict[int, list[dict]] = {}
    for result in results:
        if result["method"] in DRAWS:
            drawn.setdefault(result["budget"], []).append(result)
    means = [
        {"method": "random", "budget": m, "draws": len(same)}
        | {name: sum(r[name] for r in same) / len(same) for name in same[0] if name not in ("method", "budget")}
        for m, same in drawn.items()
    ]
    others = [result for result in results if result["method"] not in DRAWS]
    return sorted([*means, *others], key=lambda result: result["budget"])


def print_table(results: list[dict]) -> None:
    """As Markdown."""
    columns = ["sketch", "validation", "true", "true_best", "true_scaled", "later", "later_best", "later_scaled"]
    print("| budget | method | atoms | Σun/Σn | CPU s | MB | " + " | ".join(columns).replace("_", ", ") + " |")
    print("| --- " * (6 + len(columns)) + "|")
    for r in results:
        figures = " | ".join(f"{r[column]:.3f}" for column in columns)
        print(
            f"| {r['budget']} | {r['method']} | {r['atoms']:.0f} | {r['mass']:.2f} | {r['cpu_s']:.1f} | "
            f"{r['peak_mb']:.0f} | {figures} |"
        )


if __name__ == "__main__":
    main()
