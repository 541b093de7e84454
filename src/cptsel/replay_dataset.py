"""A replay corpus as PyTorch datasets. Needs only pyarrow and torch: copy this file into a trainer without cptsel.

It reads what ``cptsel export REPLAY --to parquet --out DIR`` wrote::

    replay = ReplayDataset("DIR", rank=0)                  # plays of a rank, by index and in their order
    stream = ReplayStream(replay, batch_size=8)            # the same as a stream: several workers, can resume
    both = Mixed(new_domain, stream, fraction=0.05)        # every twentieth play comes from the replay
    both = MixedDataset(new_domain, replay, fraction=0.05) # the same by index

A play is a dict: ``text``, ``loss_weight`` (multiply the losses of its tokens by it; 1 unless the manifest asks for
that), ``sample_id``, ``id``, ``group``, ``weight``, ``repeat``, ``shard`` and ``row``; with ``--ids`` also
``input_ids``. There is no ``text`` if the corpus consists of token ids.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

Play = dict[str, Any]
_CACHED = 4  # row groups that are held, of some thousand plays each


class ReplayDataset(Dataset[Play]):
    """Plays of one phase, epoch and rank, in their order.

    Args:
        directory: written by ``cptsel export --to parquet``.
        phase: stage of training, if the manifest has several.
        epoch: of its schedule, if it was ordered.
        rank: likewise.
        check: compare every file with its SHA-256 in ``export.json``.

    Raises:
        ValueError: the directory is not a finished export to Parquet, has no plays of that phase, epoch and rank, or
            was changed; or its weights are realised by draws, which a fixed order can't do.
    """

    def __init__(self, directory: str, *, phase: int = 0, epoch: int = 0, rank: int = 0, check: bool = False):
        self.folder = Path(directory)
        if not (self.folder / "_SUCCESS").exists() or not (self.folder / "export.json").exists():
            raise ValueError(f"{directory} is no finished export; write one by cptsel export --to parquet")
        header = json.loads((self.folder / "export.json").read_text(encoding="utf-8"))
        if header["to"] != "parquet":
            raise ValueError(f"{directory} was exported as {header['to']}; export it by --to parquet")
        if header["realisation"] == "sampling":
            raise ValueError(f"{directory}: its weights are realised by draws; select with another --realisation")
        self.realisation = header["realisation"]
        self.files = _files(sorted(header["files"]), directory, phase, epoch, rank)
        self._ends: list[int] = []  # of row groups, in plays
        self._groups: list[tuple[str, int]] = []
        for name in self.files:
            entry = header["files"][name]
            if check and hashlib.sha256((self.folder / name).read_bytes()).hexdigest() != entry["sha256"]:
                raise ValueError(f"{self.folder / name} is not the file that was exported (its SHA-256 differs)")
            metadata = pq.ParquetFile(self.folder / name).metadata
            if metadata.num_rows != entry["lines"]:
                raise ValueError(
                    f"{self.folder / name} has {metadata.num_rows} rows; export.json says {entry['lines']}"
                )
            for group in range(metadata.num_row_groups):
                start = self._ends[-1] if self._ends else 0
                self._ends.append(start + metadata.row_group(group).num_rows)
                self._groups.append((name, group))
        self._held: OrderedDict[int, list[Play]] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Play:
        if not -len(self) <= index < len(self):
            raise IndexError(f"play {index} of {len(self)}")
        index %= len(self)
        number = bisect.bisect_right(self._ends, index)
        return self._group(number)[index - (self._ends[number - 1] if number else 0)]

    def _group(self, number: int) -> list[Play]:
        """Plays of one row group; the last few are held."""
        if number not in self._held:
            name, group = self._groups[number]
            self._held[number] = pq.ParquetFile(self.folder / name).read_row_group(group).to_pylist()
            while len(self._held) > _CACHED:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]


def _files(names: list[str], directory: str, phase: int, epoch: int, rank: int) -> list[str]:
    """Files of one phase, epoch and rank among those of an export; each of the three may be missing from the paths."""
    wanted = {"phase": phase, "epoch": epoch, "rank": rank}
    for key, number in wanted.items():
        there = sorted({int(part[len(key) + 1 :]) for name in names for part in _folders(name) if _is(part, key)})
        if there:
            names = [
                name for name in names if any(_is(p, key) and int(p[len(key) + 1 :]) == number for p in _folders(name))
            ]
        if (there and number not in there) or (not there and number):
            has = f"it has plays of {key}s {there[0]} to {there[-1]}" if there else f"it has one {key}"
            raise ValueError(f"{directory} has no {'plays of ' if there else ''}{key} {number}; {has}")
    return names


def _folders(name: str) -> list[str]:
    return name.split("/")[1:-1]


def _is(part: str, key: str) -> bool:
    return part.startswith(f"{key}-") and part[len(key) + 1 :].isdigit()


class ReplayStream(IterableDataset[Any]):
    """Plays of a dataset as a stream that can resume, in the dataset's order with any number of loader workers.

    ``DataLoader`` takes batches from its workers in turn, so worker w of W yields batches w, w + W, ...: if both have
    the same ``batch_size``, the loader gives the dataset in order.

    Args:
        plays: what is streamed.
        batch_size: that of the ``DataLoader``.
        transform: turns a play into what the trainer wants, such as token ids; by default the play itself.
    """

    def __init__(self, plays: Dataset[Play], batch_size: int = 1, transform: Callable[[Play], Any] | None = None):
        self.plays, self.batch_size, self.transform = plays, batch_size, transform
        self.position = 0

    def __len__(self) -> int:
        return len(self.plays) - self.position  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        step = 1 if worker is None else worker.num_workers
        turn = 0 if worker is None else worker.id
        total = len(self.plays)  # type: ignore[arg-type]
        for begin in range(self.position + turn * self.batch_size, total, step * self.batch_size):
            for index in range(begin, min(begin + self.batch_size, total)):
                play = self.plays[index]
                yield play if self.transform is None else self.transform(play)

    def state_dict(self, taken: int = 0) -> dict[str, int]:
        """Where to resume: ``taken`` plays after this stream's start. The trainer counts, as workers run ahead."""
        return {"position": self.position + taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin at the place of a state."""
        self.position = state["position"]


class Mixed:
    """Two streams as one, by a fixed rule: for every n, ⌊n · fraction⌋ of the first n items are replay.

    It ends when the stream whose turn it is ends. Items may be plays, or the batches of two loaders.

    Args:
        new: the new domain.
        replay: such as a ``ReplayStream``.
        fraction: share of the items that come from the replay, in [0, 1).

    Raises:
        ValueError: the fraction is not in [0, 1).
    """

    def __init__(self, new: Iterable[Any], replay: Iterable[Any], fraction: float):
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction {fraction}: must be at least 0 and below 1")
        self.new, self.replay, self.fraction = new, replay, fraction

    def __iter__(self) -> Iterator[Any]:
        new, replay, taken = iter(self.new), iter(self.replay), 0
        for count in itertools.count(1):
            turn = math.floor(count * self.fraction + 1e-9) > taken
            taken += turn
            try:
                yield next(replay if turn else new)
            except StopIteration:
                return


class MixedDataset(Dataset[Any]):
    """Two datasets as one, by index and by the rule of ``Mixed``: for trainers that sample by number, in sequence.

    It ends where one of the two ends.

    Args:
        new: the new domain.
        replay: such as a ``ReplayDataset``.
        fraction: share of the items that come from the replay, in [0, 1).

    Raises:
        ValueError: the fraction is not in [0, 1).
    """

    def __init__(self, new: Dataset[Any], replay: Dataset[Any], fraction: float):
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction {fraction}: must be at least 0 and below 1")
        self.new, self.replay, self.fraction = new, replay, fraction
        most_new, most_replay = len(new), len(replay)  # type: ignore[arg-type]
        least, most = 0, most_new + most_replay  # the most items of which neither part is longer than its dataset
        while least < most:
            middle = (least + most + 1) // 2
            replayed = self._replayed(middle)
            fits = replayed <= most_replay and middle - replayed <= most_new
            least, most = (middle, most) if fits else (least, middle - 1)
        self._length = least

    def _replayed(self, count: int) -> int:
        """How many of the first items are of the replay."""
        return math.floor(count * self.fraction + 1e-9)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        index %= len(self)
        before, after = self._replayed(index), self._replayed(index + 1)
        return self.replay[before] if after > before else self.new[index - before]


def weighted_loss(logits: torch.Tensor, labels: torch.Tensor, loss_weight: torch.Tensor) -> torch.Tensor:
    """Mean loss per token, in which the tokens of a row are weighted by its ``loss_weight``.

    The factors have mean 1 over the tokens of a phase, so the sum is divided by the tokens and not by the factors.

    Args:
        logits: (B, T, V), of position t for the label at t.
        labels: (B, T) int64, -100 for none.
        loss_weight: (B,).
    """
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
    weighted = losses.view(labels.shape).sum(dim=1) * loss_weight.to(losses)
    return weighted.sum() / (labels >= 0).sum().clamp_min(1)
