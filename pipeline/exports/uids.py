"""DataComp and DCLM: a sorted array of the names of documents, by which their tools cut a subset out of a pool."""

import io as bytes_io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cptsel.pipeline.errors import BadInputError
from cptsel.pipeline.exports.base import ExportFormat, Fidelity, Record
from cptsel.pipeline.exports.trainers import Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from cptsel.pipeline.artifacts.manifest import Manifest

_UID = re.compile("[0-9a-f]{32}", re.IGNORECASE)
_UIDS = np.dtype([("f0", "<u8"), ("f1", "<u8")])

_DATACOMP = Trainer(
    name="DataComp, DCLM",
    recipe="""
`resharder.py -i SHARDS -o SUBSET -s EXPORT/{folder}/replay.npy` keeps the documents whose uid is in the file.
""",
    order="lost: documents keep the order of the pool",
    weights="refused, and repeats are lost",
    samples="whole documents, by name",
    repeats="lost: each document once",
)


class Uids(ExportFormat):
    """``replay.npy``: the documents' doc_ids, which must be 32 hex digits, each once, as pairs of 64-bit numbers."""

    name: ClassVar[str] = "uids"
    summary: ClassVar[str] = "document names as the .npy of DataComp and DCLM; they must be 32 hex digits"
    suffix: ClassVar[str] = ".npy"
    unit: ClassVar[str] = "document"
    layout: ClassVar = "whole"
    keeps: ClassVar[tuple[str, ...]] = ("id",)
    joins: ClassVar[bool] = True
    weighs: ClassVar[tuple[str, ...]] = ()
    shuffles: ClassVar[bool] = True
    mixes: ClassVar[bool] = False
    trainers: ClassVar[tuple[Trainer, ...]] = (_DATACOMP,)

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        names = set()
        for record in records:
            name = record["id"] or ""
            if not _UID.fullmatch(name):
                raise BadInputError(
                    f"{record['shard']}: row {record['row']} has the doc_id {record['id']!r}, and --to uids takes 32 "
                    "hex digits alone; embed with --id-field naming the column of uids, or export another format"
                )
            names.add((int(name[:16], 16), int(name[16:], 16)))
        with io.atomic_writer(path) as handle:
            handle.write(_head(len(names)) + np.array(sorted(names), dtype=_UIDS).tobytes())
        return [path]

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        data, place = io.read_bytes(path), len(_head(0))
        count, rest = divmod(len(data) - place, _UIDS.itemsize)
        if count < 0 or rest or data[:place] != _head(count):
            raise ValueError("is no array of uids as export writes it")
        found = np.frombuffer(data, _UIDS, count, place)
        first, second = found["f0"], found["f1"]
        rises = (first[1:] > first[:-1]) | ((first[1:] == first[:-1]) & (second[1:] > second[:-1]))
        if not rises.all():
            raise ValueError("holds uids that are not sorted, or one of them twice")
        return ({"id": f"{high:016x}{low:016x}"} for high, low in zip(first.tolist(), second.tolist(), strict=True))

    def kept(self, record: Record) -> Record:
        """A uid is a number: capital digits are small ones."""
        return {"id": (record["id"] or "").lower()}

    def held(self, records: Iterable[Record]) -> Iterator[Record]:
        """Each document once, by its uid, with the name of the first play of it."""
        plays: dict[str, tuple[str, int]] = {}
        for record in records:
            plays.setdefault(self.kept(record)["id"], (record["sample_id"], record["repeat"]))
        return ({"id": id, "sample_id": name, "repeat": number} for id, (name, number) in sorted(plays.items()))

    def fidelity(self, manifest: "Manifest") -> Fidelity:
        return "unordered"

    def instructions(self, manifest: "Manifest") -> str:
        return "keep the documents whose uid is in the file, each once"

    def loses(self, manifest: "Manifest") -> list[str]:
        return [
            "Whole documents are kept, even if only windows of them were chosen.",
            "Each document is kept once: repeats are lost, and so is the order.",
        ]


def _head(count: int) -> bytes:
    """What stands before so many uids in a ``.npy``; it is as long for any number of them."""
    head = bytes_io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(_UIDS), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(head, facts)
    return head.getvalue()
