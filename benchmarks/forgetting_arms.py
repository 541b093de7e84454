"""The arms of ``forgetting.py``: what each replays."""

from __future__ import annotations

from dataclasses import dataclass, replace

from forgetting_tries import TRIES, Pick, one_domain

# Embedding runs of the old corpus: options of ``cptsel embed`` beside model, corpus and pool.
AHEAD = ("--lookahead", "{new}")
FAR = (*AHEAD, "--lookahead-optimizer", "adamw", "--lookahead-lr", "3e-4", "--lookahead-tokens", "4096")  # 50 steps
ONE_STEP = ("--lookahead-lr", "0.1", "--lookahead-tokens", "32768", "--lookahead-steps", "1")
RUNS: dict[str, tuple[str, ...]] = {
    "base": (),
    "ahead-1": (*AHEAD, "--lookahead-optimizer", "sgd", *ONE_STEP),
    **{f"ahead-{steps}": (*FAR, "--lookahead-steps", str(steps)) for steps in (10, 25, 50, 100)},
    "ahead-50-mixed": (*FAR, "--lookahead", "{mixed}"),  # with a random replay beside the new text
    "ahead-50-128": (*FAR, "--max-tokens", "128"),
    "ahead-50-64": (*FAR, "--max-tokens", "64"),
    "ahead-50-body": (*FAR, "--gradient", "body"),
    "ahead-50-both": (*FAR, "--gradient", "head+body"),
    "ahead-50-k256": (*FAR, "--sketch-dim", "256"),
    "ahead-50-k4096": (*FAR, "--sketch-dim", "4096"),
    "body": ("--gradient", "body"),
    "k256": ("--sketch-dim", "256"),
    "k4096": ("--sketch-dim", "4096"),
}


@dataclass(frozen=True)
class Arm:
    """One way to replay.

    Attributes:
        select: options of ``cptsel select`` beside runs, budget, seed and --out; _ stands for a space inside a value,
            {shares} for the file of shares that the benchmark was given.
        runs: names of RUNS, in the order in which they are given.
        budget: times the budget of the benchmark; None for as many tokens as there are of the new domain.
        pick: chooses in place of any method of cptsel.
        generated: the model's own text is replayed.
    """

    select: str = ""
    runs: tuple[str, ...] = ("base",)
    budget: float | None = 1.0
    pick: Pick | None = None
    generated: bool = False


ONCE = "--scope global --realisation none"
UNIFORM = f"--method uniform {ONCE}"
COVER = f"--method craig --similarity cosine --mass corpus {ONCE}"
DEMAND = COVER.replace("corpus", "interference")  # cover what the new domain makes the model forget
SPLITS = {
    name: f"--group-by source --group-floor 256_tokens {options}"  # a window at least
    for name, options in {
        "own": "--group-alpha 1",
        "root": "--group-alpha 0.5",
        "equal": "--group-alpha 0",
        "rise": "--group-mass interference",
        "rise-root": "--group-mass interference --interference-beta 0.5",
        "fitted": "--group-mass {shares}",
    }.items()
}

DRAWN = ("ahead-50",)  # draws read no vectors: any run of the pool will do
ARMS: dict[str, Arm] = {
    "random": Arm(UNIFORM, DRAWN),
    "random-half": Arm(UNIFORM, DRAWN, budget=0.5),
    "random-2": Arm(UNIFORM, DRAWN, budget=2.0),
    "random-4": Arm(UNIFORM, DRAWN, budget=4.0),
    "random-fifth": Arm(UNIFORM, DRAWN, budget=0.2),
    "random-5": Arm(UNIFORM, DRAWN, budget=5.0),
    "joint": Arm(UNIFORM, DRAWN, budget=None),
    **{f"random-{name}": Arm(f"{UNIFORM} {split}", DRAWN) for name, split in SPLITS.items()},
    "generated": Arm(generated=True),
    "importance": Arm(f"--method importance {ONCE}"),
    "interference": Arm(f"--method interference {ONCE}", ("ahead-50",)),
    # coverage at the model as it was given
    "craig-repeat": Arm("--method craig --similarity euclidean --scope global --realisation repeat"),
    "craig-loss": Arm("--method craig --similarity euclidean --scope global --realisation loss"),
    "craig": Arm(f"--method craig --similarity euclidean {ONCE}"),
    "cover": Arm(COVER),
    "cover-repeat": Arm(COVER.replace("none", "repeat")),
    "cover-loss": Arm(COVER.replace("none", "loss")),
    "kmedoids": Arm(COVER.replace("craig", "kmedoids")),
    "kmedoids-demand": Arm(DEMAND.replace("craig", "kmedoids"), ("ahead-50",)),
    "cover-body": Arm(COVER, ("body",)),
    "cover-k256": Arm(COVER, ("k256",)),
    "cover-k4096": Arm(COVER, ("k4096",)),
    # a little way along the new domain
    "cover-ahead": Arm(COVER, ("ahead-50",)),
    "cover-change": Arm(f"{COVER} --combine difference", ("base", "ahead-50")),
    "demand": Arm(DEMAND, ("ahead-50",)),
    "demand-1": Arm(DEMAND, ("ahead-1",)),
    **{f"demand-{name}": Arm(DEMAND, (f"ahead-{name}",)) for name in ("10", "25", "100")},
    **{
        f"demand-{name}": Arm(DEMAND, (f"ahead-50-{name}",))
        for name in ("mixed", "body", "both", "k256", "k4096", "128", "64")
    },
    "demand-euclidean": Arm(DEMAND.replace("cosine", "euclidean"), ("ahead-50",)),
    "demand-change": Arm(f"{DEMAND} --combine difference", ("base", "ahead-50")),
    "demand-repeat": Arm(DEMAND.replace("none", "repeat"), ("ahead-50",)),
    "demand-loss": Arm(DEMAND.replace("none", "loss"), ("ahead-50",)),
    **{
        f"demand-repeat-{most}": Arm(DEMAND.replace("none", f"repeat --max-repeats {most}"), ("ahead-50",))
        for most in (2, 4, 8)
    },
    "demand-root-rise": Arm(f"{DEMAND} --interference-beta 0.5", ("ahead-50",)),
    "demand-squared-rise": Arm(f"{DEMAND} --interference-beta 2", ("ahead-50",)),
    **{f"demand-{name}": Arm(f"{DEMAND} {split}", ("ahead-50",)) for name, split in SPLITS.items()},
    **{f"demand-root-{name}": Arm(f"{DEMAND} {SPLITS['root']}", (f"ahead-50-{name}",)) for name in ("128", "body")},
    "demand-root-explore": Arm(f"{DEMAND} {SPLITS['root']} --explore 0.3", ("ahead-50",)),
    # shorter windows: more of them, from more documents
    "random-128": Arm(UNIFORM, ("ahead-50-128",)),
    "random-64": Arm(UNIFORM, ("ahead-50-64",)),
    "gradmatch": Arm(f"--method gradmatch {ONCE}"),
    "gradmatch-ahead": Arm(f"--method gradmatch {ONCE}", ("ahead-50",)),
    "gradmatch-ahead-root": Arm(f"--method gradmatch {ONCE} {SPLITS['root']}", ("ahead-50",)),
    "gradmatch-demand": Arm(f"--method gradmatch --mass interference {ONCE}", ("ahead-50",)),
    "gradient-coreset": Arm(f"--method gradient-coreset {ONCE}"),
    "coreset-ahead": Arm(f"--method gradient-coreset {ONCE}", ("ahead-50",)),
    "coreset-demand": Arm(f"--method gradient-coreset --mass interference {ONCE}", ("ahead-50",)),
}

ARMS |= {name: Arm(pick=pick, runs=runs) for name, (pick, runs) in TRIES.items()}

ONLY = "only-"  # and the name of a domain: all of the budget is drawn from it; what shares are fitted to


def arm_of(name: str) -> Arm:
    """The arm of a name.

    Raises:
        KeyError: there is none.
    """
    if name.startswith(ONLY):
        return Arm(pick=one_domain(name.removeprefix(ONLY)), runs=DRAWN)
    return ARMS[name]


#: The arm that draws at random under the same split over groups.
SAME_SPLIT = {"demand-own": "random-own", "demand-root": "random-root", "demand-equal": "random-equal"} | {
    "demand-rise": "random-rise",
    "demand-rise-root": "random-rise-root",
    "demand-fitted": "random-fitted",
    "demand-root-128": "random-root",
    "demand-root-body": "random-root",
    "demand-root-explore": "random-root",
    "gradmatch-ahead-root": "random-root",
}
#: Smaller and larger budgets of the arms that are followed over budgets.
for name in ("demand", "demand-root", "cover", "random-root"):
    for times, budget in {"fifth": 0.2, "half": 0.5, "2": 2.0, "4": 4.0, "5": 5.0}.items():
        ARMS[f"{name}-{times}x"] = replace(ARMS[name], budget=budget)
