"""What ``order`` tells the user, and what the manifest records of it."""

from typing import Any

import numpy as np

from cptsel.pipeline.artifacts.visits import PhaseVisits
from cptsel.pipeline.kernels.sampling.shard_order import EpochPlan, order_report
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.results import OrderResult
from cptsel.pipeline.summary import Table, counted

#: Epochs whose loads are shown, and that a dry run plans.
ROWS_SHOWN = 20


class OrderReport:
    """Gathers what is told to the user and what the manifest records."""

    def __init__(self, config: OrderConfig, out: str, visits: dict[int, PhaseVisits]) -> None:
        self.config, self.out, self.visits = config, out, visits
        self.reports: list[dict[str, Any]] = []
        self.phase_rows: list[list[Any]] = []
        self.epoch_rows: list[list[Any]] = []
        self.warnings: list[str] = []

    def add_phase(self, phase: int, q: np.ndarray, played: PhaseVisits) -> None:
        report = order_report(q, played.x, played.t)
        self.reports.append(
            {
                "phase": phase,
                "shards": report.shards,
                "visits": len(played.shard),
                "tokens": int(played.tokens.sum()),
                "effective_shards": report.effective_shards,
                "variance_ratio": report.variance_ratio,
                "variance_ratio_bound": report.variance_ratio_bound,
            }
        )
        self.phase_rows.append(list(self.reports[-1].values()))
        if len(played.shard) < self.config.world_size:
            self.warnings.append(
                f"phase {phase} has {counted(len(played.shard), 'visit')} of shards for {self.config.world_size} "
                "ranks, so some ranks get nothing; use a smaller --world-size, or smaller shards in the corpus"
            )

    def add_curricula(self, curricula: dict[int, str]) -> None:
        spread = [f"phase {phase} ({kind})" for phase, kind in curricula.items() if len(self.visits[phase].ids) > 1]
        if spread:
            self.warnings.append(
                f"a schedule plays shard by shard, so the curriculum of {', '.join(spread)} holds only within each "
                "shard; train without a schedule to keep it over the whole phase"
            )

    def add_epoch(self, phase: int, epoch: int, plan: EpochPlan) -> None:
        low, mean, high = int(plan.loads.min()), float(plan.loads.mean()), int(plan.loads.max())
        spread = (high - low) / mean if mean else 0.0
        if len(self.epoch_rows) < ROWS_SHOWN:
            self.epoch_rows.append([phase, epoch, low, round(mean), high, f"{spread:.2%}"])
        if epoch == 0 and spread > 0.1 and low:
            self.warnings.append(
                f"phase {phase}: the fullest rank has {high:,} tokens and the emptiest {low:,}, because shards are "
                "played whole; use a smaller --world-size, or smaller shards in the corpus"
            )

    def summary(self) -> OrderResult:
        one_epoch = sum(int(played.tokens.sum()) for played in self.visits.values())
        titles = ["phase", "shards", "visits", "tokens", "effective shards", "variance ratio from", "to"]
        return OrderResult(
            out=self.out,
            status="dry-run" if self.config.dry_run else "done",
            epochs=self.config.epochs,
            ranks=self.config.world_size,
            visits_per_epoch=sum(len(played.shard) for played in self.visits.values()),
            tokens_per_epoch=one_epoch,
            tokens_in_all_epochs=one_epoch * self.config.epochs,
            tables=[
                Table(title="Order against drawing shards uniformly", columns=titles, rows=self.phase_rows),
                Table(
                    title="Tokens by rank",
                    columns=["phase", "epoch", "least", "mean", "most", "spread"],
                    rows=self.epoch_rows,
                ),
            ],
            warnings=self.warnings,
        )
