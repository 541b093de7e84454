"""Every method of ``cptsel select`` on one embedding run: what it matches, covers and costs, as one table.

    make demo && python benchmarks/methods.py --run demo-out/run --group-by source
    python benchmarks/methods.py --run RUN --new NEW_RUN --group-by source --budget 2% --workers 2

Each is one call of the command, whose manifest stays under ``--out`` for ``cptsel compare``; figures are those of its
summary. ``residual`` is of the selection sketch, ``validation`` of the one that nothing is fitted to, each of the final
weights and relative to the length of the target; ``random`` is what as many uniform picks of every group would leave of
the latter on average. Residuals stand against the target of their own method, which for ``temperature`` and
``interference`` is not the corpus.
"""

from __future__ import annotations

import os
import sys

# Python puts this file's folder first on its path, where select.py would be taken for the standard module of its name.
if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:
    sys.path.remove(here)

import argparse
import json
import resource
import subprocess
import tempfile
from pathlib import Path

COMMAND = [sys.executable, "-c", "from cptsel.cli.main import run; run()", "select"]
OPTIONS = {
    "temperature": ["--group-alpha", "0.5"],
    **{name: ["--similarity", "euclidean"] for name in ("craig", "kmedoids")},  # as in the papers
}
COLUMNS = ("samples", "tokens", "effective", "residual", "validation", "random", "gain", "CPU s", "s", "MB")


def main() -> None:
    """Run the methods and print the table."""
    from cptsel.pipeline.selection.methods import METHODS

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, metavar="RUN", help="embedding run to select from")
    parser.add_argument("--new", metavar="RUN", help="embedding run of the new domain, for interference")
    parser.add_argument("--budget", default="10%")
    parser.add_argument("--group-by", metavar="COLUMN")
    parser.add_argument("--scope", choices=["shard", "global"], default="shard")
    parser.add_argument("--workers", default="1", metavar="N")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), help="methods (default all but full)")
    parser.add_argument("--out", metavar="FOLDER", help="where manifests go; a folder that is deleted by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("| method | " + " | ".join(COLUMNS) + " |\n" + "| --- " * (1 + len(COLUMNS)) + "|")
        for method in args.only or [name for name in METHODS if name != "full"]:
            print(f"| {method} | {' | '.join(run(method, args, Path(args.out or folder)))} |", flush=True)


def run(method: str, args: argparse.Namespace, folder: Path) -> list[str]:
    """One method's cells, or why there are none."""
    if method == "interference" and not args.new:
        return ["needs --new", *[""] * (len(COLUMNS) - 1)]
    out = folder / f"{method}-{args.scope}"
    command = [*COMMAND, args.run, "--method", method, "--budget", args.budget, "--scope", args.scope, "--json"]
    command += ["--workers", args.workers, "--out", str(out), "--overwrite", *OPTIONS.get(method, [])]
    command += ["--group-by", args.group_by] if args.group_by else []
    command += ["--new", args.new] if method == "interference" else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        return [(done.stderr.strip().splitlines() or ["failed"])[-1], *[""] * (len(COLUMNS) - 1)]
    totals = json.loads(done.stdout)["totals"]
    share = totals["effective tokens"] / totals["selected tokens"]
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    figures = [
        share,
        totals["residual"],
        totals["residual on the validation sketch"],
        totals["residual of random picks, on average"],
        totals.get("gain over random"),
    ]
    return [
        f"{totals['selected samples']:,}",
        f"{totals['selected tokens']:,}",
        *("" if figure is None else f"{figure:.3f}" for figure in figures),
        f"{cpu:.0f}",
        f"{totals['seconds']:.0f}",
        f"{totals['peak memory, bytes'] / 1e6:.0f}",
    ]


if __name__ == "__main__":
    main()
