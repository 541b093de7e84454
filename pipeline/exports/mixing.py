"""How an export's datasets are mixed with a new corpus: ``--new-corpus`` and ``--mix-fraction``, and what they left."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.datasets import recipe_folders
from cptsel.pipeline.exports.trainers import Blend, Mix, fill
from cptsel.schemas.headers import ExportHeader

if TYPE_CHECKING:
    from cptsel.pipeline.artifacts.manifest import Manifest

_PHASE = re.compile(r"phase-(\d+)")
_UNFIT = re.compile(r"[\s\"'\\{}]")
_HERE = "\0"  # stands for the export's directory, where that is to be found out


def phase_mixes(config: ExportConfig, manifest: "Manifest", format: ExportFormat) -> dict[int, Mix] | None:
    """How each phase is mixed; None where no new corpus is named.

    Raises:
        UsageError: the format is not mixed, a phase has no share, or a path does not fit into a trainer's files.
    """
    from cptsel.pipeline import io

    if config.new_corpus is None:
        return None
    if not format.mixes:
        raise UsageError(f"--to {format.name} is not mixed with another corpus; leave out --new-corpus")
    paths = {"--new-corpus": config.new_corpus} | ({"--out": io.absolute(config.out)} if format.blends() else {})
    for name, path in paths.items():
        if not path or _UNFIT.search(path):
            raise UsageError(
                f"{name} {path!r}: is empty or has a blank, quote, backslash or brace, which files of trainers "
                "can't hold; name another path, such as a link"
            )
    mixes = {}
    for entry in manifest.header["phases"]:
        share = entry["mix_fraction"] if config.mix_fraction is None else config.mix_fraction
        if share is None:
            raise UsageError(
                f"{manifest.directory} says no share of replay for phase {entry['phase']}; give it by --mix-fraction"
            )
        if not 0 < share < 1:
            raise UsageError(
                f"a share of replay of {share:g} leaves nothing to mix; give one below 1 by --mix-fraction"
            )
        mixes[entry["phase"]] = Mix(config.new_corpus, share)
    return mixes


def folder_mixes(mixes: Mapping[int, Mix], folders: Sequence[str]) -> dict[str, Mix]:
    """How each dataset is mixed, by its folder; one that holds several phases as the first of them."""
    return {folder: mixes[phase_of(folder, min(mixes))] for folder in folders}


def phase_of(folder: str, otherwise: int) -> int:
    """The phase of a dataset, by its folder; ``otherwise`` where that says none."""
    found = _PHASE.search(folder)
    return int(found[1]) if found else otherwise


def write_blends(format: ExportFormat, out: str, mixes: Mapping[str, Mix]) -> list[str]:
    """Write the files by which trainers mix each dataset; they name this export by its path.

    Returns:
        Their paths.
    """
    from cptsel.pipeline import io

    paths = []
    for name, (folder, blend) in _blends(format, mixes).items():
        paths.append(io.join(out, name))
        io.write_bytes(paths[-1], fill(blend.text, folder, mixes[folder], out).encode())
    return paths


def mixes_of(header: ExportHeader) -> dict[str, Mix] | None:
    """How each dataset is mixed, by its folder, as ``export.json`` says; None where no new corpus was named."""
    if "mix" not in header:
        return None
    return {folder: Mix(mix["new_corpus"], mix["fraction"]) for folder, mix in header["mix"].items()}


def wrong_mix(format: ExportFormat, header: ExportHeader) -> str | None:
    """What ``export.json`` says of mixing and can't be, in words that go on after its name."""
    mixes = mixes_of(header)
    folders = recipe_folders(format, header["files"])
    if mixes is not None and (not format.mixes or sorted(mixes) != sorted(folders)):
        return f"mixes {', '.join(sorted(mixes)) or 'nothing'}, but the datasets are {', '.join(folders) or 'none'}"
    if mixes is not None and any(not mix.new or _UNFIT.search(mix.new) for mix in mixes.values()):
        return "mixes with a corpus that files of trainers can't name"
    if len({mix.new for mix in (mixes or {}).values()}) > 1:
        return "mixes with several new corpora"
    names = set(format.blends())
    listed = {name for name in header["files"] if name.rpartition("/")[2] in names}
    expected = set(_blends(format, mixes or {}))
    if missing := sorted(expected - listed):
        return f"does not list {missing[0]}"
    if added := sorted(listed - expected):
        return f"lists {added[0]}, though nothing is mixed there"
    return None


def is_blend(format: ExportFormat, mixes: Mapping[str, Mix], name: str, data: bytes) -> bool:
    """Whether a file is the blend of that name as ``write_blends`` writes it, wherever the export was written.

    Args:
        format: of the export.
        mixes: how each of its datasets is mixed, by folder.
        name: of the blend, relative to the export.
        data: of the file.
    """
    from cptsel.pipeline import io

    folder, blend = _blends(format, mixes)[name]
    first, *others = map(re.escape, fill(blend.text, folder, mixes[folder], _HERE).split(_HERE))
    try:
        found = re.fullmatch(first + "(.+)" + r"\1".join(others), data.decode())
    except UnicodeDecodeError:
        return False
    return found is not None and not _UNFIT.search(found[1]) and io.absolute(found[1]) == found[1]


def mixed_paths(format: ExportFormat, mixes: Mapping[str, Mix]) -> list[str]:
    """Names of the blends of an export, relative to it."""
    return list(_blends(format, mixes))


def _blends(format: ExportFormat, mixes: Mapping[str, Mix]) -> dict[str, tuple[str, Blend]]:
    """By its name relative to the export, the folder of each blend, and the blend."""
    found = {name: trainer.blend for name, trainer in format.blends().items() if trainer.blend is not None}
    return {f"{folder}/{name}": (folder, blend) for folder in mixes for name, blend in found.items()}
