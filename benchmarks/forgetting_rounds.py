"""How much a model forgets over several rounds: domains that were new are old in the next, with and without history.

    python benchmarks/forgetting_rounds.py --out rounds --corpus CORPUS --rounds postgres manpages java --mixed

Every round goes on from the model of the one before. CORPUS is that of ``forgetting.py``; every round names a file in
CORPUS/new and one in CORPUS/heldout/new, NAME.jsonl. An arm is chosen in every round anew, from the old corpus and the
new domains of the rounds before; ``+ARM`` leaves out what the earlier rounds replayed (``select --history``). Each
round is one line of ``OUT/results.jsonl``. Of all that are there is printed the mean rise of the loss in bits per byte
since the first model, of the first old domains; that of the earlier rounds' domains, since each was learnt; and what
was learnt.
"""

from __future__ import annotations

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)
    sys.path.append(here)

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from continual import Recipe, Replay, bits_per_byte, read_texts, train
from forgetting import RESULTS, Setting, embed, facts, held_out, load, new_rows, replay_of, runs_of, texts_of
from forgetting_arms import arm_of

HISTORY = "+"  # before the name of an arm


@dataclass(frozen=True)
class Rounds:
    """What all chains of rounds share: the setting of the first, and the folders of all."""

    first: Setting
    corpus: str
    names: tuple[str, ...]


def main() -> None:
    """Chains of rounds, one a seed and arm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", required=True, help="folder of runs, manifests, models and results")
    parser.add_argument("--corpus", required=True, help="folder with old/, new/ and heldout/ of JSONL files")
    parser.add_argument("--rounds", nargs="+", required=True, help="names of the new domains, in their order")
    parser.add_argument("--model", required=True)
    parser.add_argument("--pool", default="2000000 tokens", help="of the old corpus, as cptsel embed takes it")
    parser.add_argument("--share", type=float, default=0.05, help="tokens of the replay, as a share of the new ones")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--held-out-bytes", type=int, default=40_000, help="of each domain that are measured")
    parser.add_argument("--arms", nargs="+", default=("none", "random", "demand", "+demand"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="chains at a time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mixed", action="store_true", help="train and measure in bfloat16 where autocast takes it")
    args = parser.parse_args()
    first = Setting(
        out=args.out,
        model=args.model,
        old=f"{args.corpus}/old/*/*.jsonl*",
        new="",
        held_out_old=f"{args.corpus}/heldout/old/*.jsonl*",
        held_out_new="",
        related=None,
        shares=None,
        pool=args.pool,
        share=args.share,
        recipe=Recipe(steps=args.steps, mixed=args.mixed),
        held_out_bytes=args.held_out_bytes,
        device=args.device,
        threads=max(1, (os.cpu_count() or 1) // args.jobs),
    )
    rounds = Rounds(first, str(Path(args.corpus).resolve()), tuple(args.rounds))
    results = Path(args.out) / RESULTS
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(line["seed"], line["arm"]) for line in lines if line["round"] == len(rounds.names)}
    wanted = [(seed, arm) for seed in range(args.seeds) for arm in args.arms if (seed, arm) not in done]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(chain, rounds, seed, arm) for seed, arm in wanted]):
            with results.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in future.result())
            lines += future.result()
            print(f"{lines[-1]['arm']}, seed {lines[-1]['seed']}: all rounds", file=sys.stderr, flush=True)
    for line in lines:
        print(f"{line['arm']:<12}{line['seed']:>3}{line['round']:>3}  {shown(line)}")


def shown(line: dict[str, Any]) -> str:
    """The figures of one round."""
    old = np.mean([line["after"][name] - line["first"][name] for name in line["first"]])
    earlier = [line["after"][name] - line["learnt"][name] for name in line["learnt"]]
    again = f"{np.mean(earlier):8.4f} forgotten of earlier rounds" if earlier else ""
    return f"{old:8.4f} forgotten{line['new_before'] - line['new_after']:8.4f} learnt{again}"


def chain(rounds: Rounds, seed: int, name: str) -> list[dict[str, Any]]:
    """All rounds of one seed and arm: a line each."""
    out = Path(rounds.first.out) / "chains" / str(seed) / name
    lines: list[dict[str, Any]] = []
    model, history = rounds.first.model, tuple[str, ...]()
    for number, new in enumerate(rounds.names):
        folder = corpus_of_round(rounds, number, out / f"corpus-{number + 1}")
        setting = replace(
            rounds.first,
            out=str(out / f"round-{number + 1}"),
            model=model,
            old=f"{folder}/old/*/*.jsonl*",
            new=f"{rounds.corpus}/new/{new}.jsonl",
            held_out_old=f"{folder}/heldout/*.jsonl*",
            held_out_new=f"{rounds.corpus}/heldout/new/{new}.jsonl",
        )
        line, model, replayed = one_round(setting, seed, name, history)
        history = (*history, replayed) if name.startswith(HISTORY) else ()
        first = lines[0]["first"] if lines else line["before"]
        learnt = (lines[-1]["learnt"] | {rounds.names[number - 1]: lines[-1]["new_after"]}) if lines else {}
        lines.append({"arm": name, "seed": seed, "round": number + 1, "first": first, "learnt": learnt, **line})
    return lines


def corpus_of_round(rounds: Rounds, number: int, folder: Path) -> Path:
    """The first old corpus and the new domains of the rounds before ``number``, as old/ and heldout/ of ``folder``."""
    for path in Path(rounds.corpus, "old").glob("*/*.jsonl*"):
        link(folder / "old" / path.parent.name / path.name, path)
    for path in Path(rounds.corpus, "heldout", "old").glob("*.jsonl*"):
        link(folder / "heldout" / path.name, path)
    for name in rounds.names[:number]:
        link(folder / "heldout" / f"{name}.jsonl", Path(rounds.corpus, "heldout", "new", f"{name}.jsonl"))
        texts = folder / "old" / name / "texts.jsonl"
        if not texts.exists():
            texts.parent.mkdir(exist_ok=True)
            rows = enumerate(read_texts(f"{rounds.corpus}/new/{name}.jsonl"))
            texts.write_text(
                "".join(json.dumps({"id": f"{name}-{i}", "source": name, "text": text}) + "\n" for i, text in rows)
            )
    return folder


def link(path: Path, target: Path) -> None:
    """A symbolic link, unless it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target)


def one_round(setting: Setting, seed: int, name: str, history: Sequence[str]) -> tuple[dict[str, Any], str, str]:
    """Choose, train and measure: facts of one round, and the folders of the model and the replay."""
    torch.set_num_threads(setting.threads)
    torch.manual_seed(seed)
    arm, recipe, replay = name.removeprefix(HISTORY), setting.recipe, Replay()
    texts, prefix, _ = texts_of(setting.model)
    chosen: dict[str, Any] = {}
    if arm != "none":
        for run in runs_of(arm):
            embed(setting, seed, run)
        replay, chosen = replay_of(setting, seed, arm, arm_of(arm), texts, history)
    model = load(setting.model, setting.device)
    line: dict[str, Any] = {"setting": facts(setting), "replay_tokens": replay.tokens, "chosen": chosen}
    measured = {
        "": (setting.held_out_old, setting.held_out_bytes),
        "new_": (setting.held_out_new, 5 * setting.held_out_bytes),
    }
    for when in ("before", "after"):
        for which, (pattern, most) in measured.items():
            found = bits_per_byte(model, held_out(setting.model, pattern, recipe.length, most), recipe.mixed)
            line[which + when] = found if which == "" else next(iter(found.values()))
        if when == "before":
            train(model, new_rows(setting.model, setting.new, recipe.length), replay, prefix, recipe, seed)
    folder = str(Path(setting.out) / "model")
    model.save_pretrained(folder)
    texts.tokenizer.save_pretrained(folder)
    return line, folder, str(Path(setting.out) / "replays" / str(seed) / arm)


if __name__ == "__main__":
    main()
