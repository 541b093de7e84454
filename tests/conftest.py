"""What the tests share: where the data lies, and one thread for mathematics, whatever the machine has."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test waits for the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy, torch and faiss are imported

import pytest
from hypothesis import settings
from run_builder import ROWS, build_run

REPOSITORY = Path(__file__).parents[1]

settings.register_profile("cptsel", deadline=None)  # a busy machine is no failure
settings.load_profile("cptsel")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The texts that are part of the repository."""
    return REPOSITORY / "sample_data"


@pytest.fixture(scope="session")
def tiny_lm() -> Path:
    """The small trained model that is part of the repository."""
    return REPOSITORY / "sample_data" / "tiny-lm"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The large benchmark corpus, named by CPTSEL_SHARED; the test skips where it is absent."""
    folder = Path(os.environ.get("CPTSEL_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no benchmark corpus at {folder}; set CPTSEL_SHARED")
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A small embedding run; no test changes it."""
    return build_run(tmp_path_factory.mktemp("run") / "run", rows=ROWS, pool=True)


@pytest.fixture(scope="session")
def later(tmp_path_factory) -> Path:
    """The same samples at a later checkpoint."""
    return build_run(tmp_path_factory.mktemp("later") / "run", rows=ROWS, pool=True, drift=0.5)


@pytest.fixture(scope="session")
def token_corpus(tmp_path_factory, tiny_lm):
    """A corpus of token ids, and of the texts that they were; no test changes it."""
    from token_builder import build_token_corpus

    return build_token_corpus(tmp_path_factory.mktemp("tokens"), tiny_lm)


@pytest.fixture(scope="session")
def token_run(token_corpus, tmp_path_factory, tiny_lm):
    """The run of its ids; no test changes it."""
    from token_builder import embed

    out = tmp_path_factory.mktemp("token-run") / "run"
    embed(str(token_corpus.ids / "*/*"), out, tiny_lm, "--group-by", "path[0]")
    return out


@pytest.fixture(scope="session")
def token_replay(token_run, tmp_path_factory):
    """A manifest of it with repeats, ordered for two ranks; no test changes it."""
    from token_builder import replay_of

    return replay_of(token_run, tmp_path_factory.mktemp("token-replay"))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory, tiny_lm):
    """A manifest of a corpus that was really tokenised; no test changes it."""
    from embedded_builder import build_embedded

    return build_embedded(tmp_path_factory.mktemp("embedded"), tiny_lm)


@pytest.fixture(scope="session")
def exports(embedded, tmp_path_factory):
    """An export of that in every format, with token ids and without; no test changes them."""
    from export_checks import make_all

    return make_all(embedded.replay, tmp_path_factory.mktemp("exports"))


@pytest.fixture
def copied(exports, tmp_path):
    """A function that copies one of them, by name, for a test to change."""
    return lambda name: shutil.copytree(exports[name], tmp_path / name)


@pytest.fixture
def checks_without_beam(monkeypatch):
    """``verify`` runs its checks in this process, one after another."""
    from cptsel.pipeline.engine.steps import InlineSteps

    monkeypatch.setattr("cptsel.pipeline.verification.scratch.Steps", InlineSteps)
