"""An export in every format, and what ``verify`` says of one."""

import json

import pytest

from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

ALL = [(to, ids) for to, format in EXPORTS.items() for ids in ([False, True] if format.writes_ids else [False])]
ALL = [(to, ids) for to, ids in ALL if not EXPORTS[to].refers]  # these want another corpus and have tests of their own
ALL = [(to, ids) for to, ids in ALL if ids == (not EXPORTS[to].writes_text) or EXPORTS[to].writes_text]
NAMES = [f"{to}{'-ids' if ids and EXPORTS[to].writes_text else ''}" for to, ids in ALL]
FORMATS = pytest.mark.parametrize("name", NAMES)


def make(replay, out, to, **options):
    """The export, made without Beam."""
    export(ExportConfig(replay=str(replay), out=str(out), to=to, **options), make_steps=InlineSteps)
    return out


def make_all(replay, folder):
    """By name: every format, with token ids and without."""
    return {name: make(replay, folder / name, to, ids=ids) for name, (to, ids) in zip(NAMES, ALL, strict=True)}


def check(directory, replay=None, **options):
    """What ``verify`` says."""
    return verify(VerifyConfig(directory=str(directory), replay=None if replay is None else str(replay), **options))


def problems(directory, replay=None, **options):
    """(file, row, problem) of every problem that is listed; the error's sentence has the first."""
    with pytest.raises(VerificationError) as error:
        check(directory, replay, **options)
    summary = error.value.summary
    json.dumps(summary.as_dict())
    rows = summary.tables[-1].rows
    assert rows[0][2] in str(error.value)
    assert "\n" not in str(error.value)
    return rows
