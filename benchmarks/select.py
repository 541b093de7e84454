"""CRAIG against exact greedy and other libraries: how good, how fast, how much memory.

    python benchmarks/select.py --run RUN                   # gradients of an embedding run
    python benchmarks/select.py --run RUN --corpus GLOB...  # which is made first; an hour on two cores for 40M tokens
    python benchmarks/select.py                             # synthetic rows
    python benchmarks/select.py --peer-python ENV/bin/python # where the other libraries are installed
    python benchmarks/select.py --scale 100000 1000000      # cost of CRAIG alone at these numbers of rows

Two tables. At ``--rows`` (50,000) CRAIG stands beside exact lazy greedy, which computes distances in blocks and keeps
none; at ``--peer-rows`` (10,000) beside apricot-select, submodlib-py and FasterPAM (kmedoids) as well, whose n × n
arrays would take 10 to 20 GB at 50,000. A library that can't be imported is left out, saying so
(``pip install 'cptsel[bench]'``).

``knn_graph`` is no method but the cost of a brute-force graph of ``--neighbours``, which others begin with. Every
method runs in a process of its own. CPU and wall time are those of the selection, after imports, loading and a
warm-up; memory is the peak of the whole process, rows and interpreter included. The loss L of a choice is the exact
mean distance of all rows to the nearest chosen one, and its gain is (L_random − L) / (L_random − L_best): 0 for a
random choice, 1 for the best in the table. All rows have mass 1.
"""

from __future__ import annotations

import os
import sys

# Python puts this file's folder first on its path, where the file would be taken for the standard module of its name.
if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:
    sys.path.remove(here)

import argparse
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
COMMAND = "from cptsel.cli.main import run; run()"
PEERS = ("apricot", "submodlib", "fasterpam", "onebatchpam")
Method = Callable[[np.ndarray, int, argparse.Namespace], np.ndarray]


def main() -> None:
    """Run the two comparisons and print them."""
    args = parse_arguments()
    if args.child:
        run_child(args)
        return
    if args.scale:
        scale(args)
        return
    if args.corpus:
        embed(args)
    rows, source = load_rows(args)
    rows = rows[np.random.default_rng(args.seed).permutation(len(rows))]
    tables = []
    for count, methods in (
        (args.rows, ["craig", "craig_greedy", "knn_graph", "exact"]),
        (args.peer_rows, list(METHODS)),
    ):
        x = rows[:count]
        methods = [name for name in methods if name not in args.skip]
        if len(x) < count:
            print(f"only {len(x)} rows; {count} were asked for", file=sys.stderr)
        for share in args.shares:
            tables.append(compare(x, round(share * len(x)), methods, args))
            print_table(tables[-1], source)
    if args.json:
        Path(args.json).write_text(json.dumps({"source": source, "tables": tables}, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line; ``--child`` and what follows are how the script calls itself."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", nargs="+", metavar="RUN", help="embedding runs to take gradients from")
    parser.add_argument("--corpus", nargs="+", metavar="GLOB", help="text to embed into --run first")
    parser.add_argument("--model", default=str(SAMPLE / "tiny-lm"), help="model to embed it with")
    parser.add_argument("--rows", type=int, default=50_000, help="rows beside exact greedy (default 50000)")
    parser.add_argument("--peer-rows", type=int, default=10_000, help="rows beside the libraries (default 10000)")
    parser.add_argument("--scale", type=int, nargs="+", metavar="ROWS", help="only CRAIG, at the first of --shares")
    parser.add_argument("--dim", type=int, default=256, help="width of the rows (default 256)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1], help="budgets (default 0.01 0.1)")
    parser.add_argument("--neighbours", type=int, default=128)
    parser.add_argument("--refine", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the rows taken and of the random choices")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip", nargs="*", default=[], choices=list(METHODS), metavar="METHOD", help="leave out")
    parser.add_argument("--peer-python", default=sys.executable, help="Python that has the libraries")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file as well")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--picks", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def embed(args: argparse.Namespace) -> None:
    """Embed the corpus into the run, or go on with it, or find it whole."""
    if not args.run or len(args.run) != 1:
        sys.exit("--corpus needs one --run to embed into")
    command = [sys.executable, "-c", COMMAND, "embed", *args.corpus, "--model", args.model]
    subprocess.run([*command, "--out", args.run[0], "--max-tokens", "256"], check=True)


def load_rows(args: argparse.Namespace) -> tuple[np.ndarray, str]:
    """Mean token gradients of the runs, or synthetic rows: (n, dim) float32, and where they come from."""
    if not args.run:
        return synthetic_rows(max(args.rows, args.peer_rows), args.dim, args.seed), "synthetic rows"
    from cptsel.pipeline.artifacts.embeddings import read_directions, read_rows
    from cptsel.pipeline.artifacts.run import open_runs

    runs = open_runs(args.run)
    blocks = []
    for shard in runs.shards:
        table = read_rows(shard, runs.schema, ["sketch_norm", "n_tokens"])
        lengths = table.column("sketch_norm").to_numpy() / table.column("n_tokens").to_numpy()
        directions = np.concatenate(list(read_directions(shard, runs.schema)))
        # A CountSketch of k numbers folds into one of dim where dim divides k: buckets modulo dim, signs as they are.
        folded = directions.reshape(len(directions), -1, args.dim).sum(axis=1)
        blocks.append((folded * lengths[:, None]).astype(np.float32))
    return np.concatenate(blocks), f"gradients of {runs.headers[0]['model']['class']}, sketched"


def synthetic_rows(n: int, d: int, seed: int) -> np.ndarray:
    """Clusters of very unequal size and spread with heavy-tailed norms, which gradients have too."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((300, d)) * random.lognormal(0, 0.6, (300, 1))
    cluster = random.choice(300, n, p=random.dirichlet(np.full(300, 0.5)))
    noise = random.standard_normal((n, d)) * random.lognormal(0, 0.4, (n, 1))
    return ((centres[cluster] + 0.7 * noise) * random.lognormal(0, 0.5, (n, 1)) / np.sqrt(d)).astype(np.float32)


def scale(args: argparse.Namespace) -> None:
    """CRAIG alone on synthetic rows of several numbers: how its cost grows, and its gain over random picks.

    The gain is that of the exact mean distance of up to 16,384 random rows.
    """
    last: tuple[int, float] | None = None
    for count in args.scale:
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder, "x.npy"), synthetic_rows(count, args.dim, args.seed))
            found = call_child("craig", folder, picks := round(args.shares[0] * count), args)
            x, random = np.load(Path(folder, "x.npy"), mmap_mode="r"), np.random.default_rng(args.seed)
            some, drawn = (np.sort(random.choice(count, k, replace=False)) for k in (min(count, 16_384), picks))
            reached, baseline = (loss_of(x[some], x[rows]) for rows in (np.load(Path(folder, "picks.npy")), drawn))
        grown = np.log(found["cpu_s"] / last[1]) / np.log(count / last[0]) if last else np.nan
        last = (count, found["cpu_s"])
        print(
            f"{count:>9,} × {args.dim}, {args.shares[0]:.0%}: {found['wall_s']:.1f} s, {found['cpu_s']:.1f} CPU s, "
            f"{found['peak_mb']:,.0f} MB; exponent {grown:.2f}; gain over random {1 - reached / baseline:.5f}",
            flush=True,
        )


def compare(x: np.ndarray, picks: int, methods: list[str], args: argparse.Namespace) -> dict:
    """Run the methods one after the other, each in its own process, and measure their choices in this one."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "x.npy"), x)
        for name in methods:
            print(f"{name}: {picks} of {len(x)} …", file=sys.stderr)
            figures = call_child(name, folder, picks, args)
            if "skipped" not in figures and name != "knn_graph":
                chosen = np.load(Path(folder, "picks.npy"))
                figures |= {"loss": loss(x, chosen), "distinct_picks": len(np.unique(chosen))}
            results.append({"method": name} | figures)
    random = np.random.default_rng(args.seed)
    baseline = float(np.mean([loss(x, random.choice(len(x), picks, replace=False)) for _ in range(5)]))
    best = min(r["loss"] for r in results if "loss" in r)
    for r in results:
        if "loss" in r:
            r["gain"] = (baseline - r["loss"]) / (baseline - best)
    exact = next((r["gain"] for r in results if r["method"] == "exact"), None)
    for r in results:
        if exact and "gain" in r:
            r["gain_over_exact"] = r["gain"] / exact
    return {"rows": len(x), "dim": x.shape[1], "picks": picks, "random_loss": baseline, "results": results}


def call_child(name: str, folder: str, picks: int, args: argparse.Namespace) -> dict:
    """Run one method in a process of its own; its figures, or why there are none."""
    python = args.peer_python if name.startswith(PEERS) else sys.executable
    command = [python, __file__, "--child", name, "--folder", folder, "--picks", str(picks)]
    command += ["--neighbours", str(args.neighbours), "--refine", str(args.refine), "--seed", str(args.seed)]
    command += ["--threads", str(args.threads)]
    threads = {f"{library}_NUM_THREADS": str(args.threads) for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads, check=False)
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def run_child(args: argparse.Namespace) -> None:
    """In the child: load, warm up, select, write the picks and print the figures as one line of JSON."""
    x = np.load(Path(args.folder, "x.npy"))
    method = METHODS[args.child]
    method(x[:200], 5, args)
    wall, cpu = time.perf_counter(), time.process_time()
    picks = method(x, args.picks, args)
    figures = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "peak_mb": peak_memory()}
    np.save(Path(args.folder, "picks.npy"), np.asarray(picks, np.int64))
    print(json.dumps(figures))


def peak_memory() -> float:
    """Peak resident memory of this process in MB.

    Linux carries ``ru_maxrss`` over from the parent through exec, so the process's own high-water mark is read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    scale = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def loss(x: np.ndarray, picks: np.ndarray) -> float:
    """Exact mean distance of all rows to the nearest pick."""
    return loss_of(x, x[picks])


def loss_of(x: np.ndarray, picked: np.ndarray) -> float:
    """Exact mean distance of rows to the nearest of those picked."""
    from cptsel.pipeline.kernels.neighbours import nearest

    return float(nearest(x, picked, 1).distances.mean(dtype=np.float64))


def craig(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """Ours, the report's random choices included."""
    from cptsel.pipeline.kernels.coverage.craig import craig

    ones = np.ones(len(x))
    result = craig(x, ones, ones.astype(np.int64), picks, neighbours=args.neighbours, refine=args.refine)
    return result.picks


def knn_graph(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """A brute-force graph of the nearest neighbours, by FAISS, and no choice."""
    import faiss

    faiss.knn(x, x, min(args.neighbours, len(x)))
    return np.arange(picks)


def craig_greedy(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """Ours without medoid passes."""
    return craig(x, picks, argparse.Namespace(neighbours=args.neighbours, refine=0))


def exact(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """Lazy greedy on all distances, which are computed again whenever they are needed: n × block memory.

    It maximises Σ_i (d0 − min_{j∈S} d(i, j)) for a d0 above every distance: the same picks as k-median greedy.
    """
    x = x - x.mean(axis=0)
    lengths = np.einsum("ij,ij->i", x, x)
    nearest = np.full(len(x), 2 * np.sqrt(lengths.max()), np.float32)
    bound, chosen = np.full(len(x), np.inf), []

    def distances_to(rows: np.ndarray) -> np.ndarray:
        squares = x @ (-2 * x[rows]).T
        squares += lengths[:, None]
        squares += lengths[rows]
        return np.sqrt(np.maximum(squares, 0, out=squares), out=squares)

    while len(chosen) < picks:
        fresh = np.zeros(len(x), bool)
        block = 16
        while not fresh[top := int(np.argmax(bound))]:
            if np.isinf(bound[top]):
                block = 512
            stale = np.flatnonzero(~fresh)
            rows = stale[np.argpartition(-bound[stale], min(block, len(stale) - 1))[:block]]
            apart = distances_to(rows)
            bound[rows] = np.maximum(nearest[:, None] - apart, 0, out=apart).sum(axis=0, dtype=np.float64)
            fresh[rows] = True
            block = min(512, 2 * block)
        chosen.append(top)
        bound[top] = -1
        nearest = np.minimum(nearest, distances_to(np.array([top]))[:, 0])
    return np.array(chosen)


def similarities(x: np.ndarray) -> np.ndarray:
    """d_max − d for all pairs, (n, n) float32, made by BLAS: the objective that ours and exact greedy have."""
    x = x - x.mean(axis=0)
    lengths = np.einsum("ij,ij->i", x, x)
    kernel = np.maximum(lengths[:, None] + lengths - 2 * (x @ x.T), 0)
    kernel = np.sqrt(kernel, out=kernel)
    return np.subtract(kernel.max(), kernel, out=kernel)


def apricot(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """apricot-select as its documentation has it; its "euclidean" is the squared distance, another objective."""
    from apricot import FacilityLocationSelection

    return FacilityLocationSelection(picks, metric="euclidean", random_state=args.seed).fit(x).ranking


def apricot_kernel(x: np.ndarray, picks: int, args: argparse.Namespace, optimizer: str = "lazy") -> np.ndarray:
    """apricot-select on similarities of the same objective, with its default optimizer."""
    from apricot import FacilityLocationSelection

    selector = FacilityLocationSelection(picks, "precomputed", optimizer=optimizer, random_state=args.seed)
    return selector.fit(similarities(x)).ranking


def apricot_approximate(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """apricot-select on the same similarities with the optimizer that chose best."""
    return apricot_kernel(x, picks, args, "approximate-lazy")


def submodlib(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """submodlib-py on similarities of the same objective, lazy greedy."""
    from submodlib import FacilityLocationFunction

    function = FacilityLocationFunction(n=len(x), mode="dense", sijs=similarities(x), separate_rep=False)
    return submodlib_picks(function, picks)


def submodlib_data(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """submodlib-py as its documentation has it: from the rows."""
    from submodlib import FacilityLocationFunction

    return submodlib_picks(FacilityLocationFunction(n=len(x), mode="dense", data=x, metric="euclidean"), picks)


def fasterpam(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """FasterPAM of kmedoids on all distances, from random medoids: swaps until none helps, beyond what greedy finds."""
    import kmedoids

    distances = similarities(x)
    distances = np.subtract(distances.max(), distances, out=distances)
    return kmedoids.fasterpam(distances, picks, random_state=args.seed, n_cpu=args.threads).medoids


def onebatchpam(x: np.ndarray, picks: int, args: argparse.Namespace) -> np.ndarray:
    """OneBatchPAM of onebatch: swaps that are scored on the distances to one sampled batch."""
    from onebatch import OneBatchPAM

    return OneBatchPAM(n_medoids=picks, distance="euclidean", random_state=args.seed).fit(x).medoid_indices_


def submodlib_picks(function, picks: int) -> np.ndarray:
    """Lazy greedy picks of a submodlib function."""
    found = function.maximize(
        budget=picks, optimizer="LazyGreedy", stopIfZeroGain=False, stopIfNegativeGain=False, show_progress=False
    )
    return np.array([index for index, _ in found])


METHODS: dict[str, Method] = {
    "craig": craig,
    "craig_greedy": craig_greedy,
    "knn_graph": knn_graph,
    "exact": exact,
    "apricot": apricot,
    "apricot_kernel": apricot_kernel,
    "apricot_approximate": apricot_approximate,
    "submodlib": submodlib,
    "submodlib_data": submodlib_data,
    "fasterpam": fasterpam,
    "onebatchpam": onebatchpam,
}


def print_table(table: dict, source: str) -> None:
    """One comparison as text."""
    print(f"\n{table['picks']} of {table['rows']} × {table['dim']} ({source}); random L {table['random_loss']:.5f}")
    print(f"{'method':<20} {'gain':>7} {'of exact':>9} {'L':>9} {'CPU s':>8} {'wall s':>8} {'peak MB':>8}")
    for r in table["results"]:
        if "skipped" in r:
            print(f"{r['method']:<20} skipped: {r['skipped']}")
            continue
        if "gain" not in r:
            print(f"{r['method']:<20} {'':>27} {r['cpu_s']:8.1f} {r['wall_s']:8.1f} {r['peak_mb']:8.0f}", flush=True)
            continue
        ratio = f"{r['gain_over_exact']:9.4f}" if "gain_over_exact" in r else " " * 9
        print(
            f"{r['method']:<20} {r['gain']:7.4f} {ratio} {r['loss']:9.5f} "
            f"{r['cpu_s']:8.1f} {r['wall_s']:8.1f} {r['peak_mb']:8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
