"""The jobs that Dataflow would be given: Beam's own translation, its staging, and the graph run by the local runner.

Cloud Storage is a stand-in on loopback, as in ``test_stores.py``. Of Dataflow itself nothing is there: the request to
the service is not sent.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from store_servers import store_servers

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig

pytestmark = pytest.mark.stores

OPTIONS = (
    "--runner=DataflowRunner",
    "--project=project",
    "--region=us-central1",
    "--temp_location=gs://bucket/tmp",
    "--sdk_container_image=registry/project/cptsel:1",
    "--sdk_location=container",
    "--no_auth",
)
GPU = (
    "--resource_hint=min_ram=32GB",
    "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver",
    "--worker_machine_type=g2-standard-8",
    "--disk_size_gb=200",
    "--number_of_worker_harness_threads=1",
    "--experiments=no_use_multiple_sdk_containers",
)
#: What Dataflow's service runs; the rest of a graph is made of these.
PRIMITIVES = {
    *("beam:transform:impulse:v1", "beam:transform:pardo:v1", "beam:transform:group_by_key:v1"),
    *("beam:transform:flatten:v1", "beam:transform:reshuffle:v1", "beam:transform:combine_per_key:v1"),
}
MOST = 100_000  # bytes of a job; Dataflow refuses ten million


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with store_servers():
        yield "gs://bucket"


@pytest.fixture
def jobs(bucket, monkeypatch) -> list[Any]:
    """Jobs as they would be sent; each has run on the local runner when the command goes on."""
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
    from apache_beam.runners.dataflow.internal import apiclient

    made: list[Any] = []
    translate = DataflowRunner.run_pipeline

    def run(runner: Any, pipeline: Any, options: PipelineOptions, pipeline_proto: Any = None) -> Any:
        options.view_as(pipeline_options.TestOptions).dry_run = True  # translate, and do not send
        job = translate(runner, pipeline, options, pipeline_proto).job
        apiclient.DataflowApplicationClient(options, job.root_staging_location).create_job_description(job)
        made.append(job)
        graph = beam_runner_api_pb2.Pipeline()
        graph.CopyFrom(job.proto_pipeline)
        for environment in graph.components.environments.values():
            environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        return FnApiRunner().run_via_runner_api(graph, PipelineOptions([]))

    monkeypatch.setattr(DataflowRunner, "run_pipeline", run)
    monkeypatch.setattr(apiclient.DataflowApplicationClient, "submit_job_description", None)
    return made


def _leaves(job: Any) -> set[str]:
    transforms = job.proto_pipeline.components.transforms.values()
    return {transform.spec.urn for transform in transforms if not transform.subtransforms and transform.spec.urn}


def _contents(directory: str) -> dict[str, bytes]:
    names = set(outputs.list_tree(directory)) - {outputs.STATS, outputs.CONFIG}
    return {name: io.read_bytes(io.join(directory, name)) for name in names}


@pytest.fixture(scope="module")
def local_run(sample_data, tiny_lm, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("local") / "run"
    embed(EmbedConfig(out=str(out), **_settings(sample_data, tiny_lm)))
    return out


def _settings(sample_data: Path, tiny_lm: Path) -> dict[str, Any]:
    inputs = tuple(str(sample_data / "old" / source / "shard-00000.jsonl.gz") for source in ("docs_en", "code_python"))
    return {"inputs": inputs, "model": str(tiny_lm), "max_tokens": 64, "limit": 5, "group_by": ("source",)}


def test_embed_is_a_job_that_dataflow_takes(jobs, bucket, sample_data, tiny_lm, local_run):
    out = f"{bucket}/dataflow/run"
    embed(EmbedConfig(out=out, beam_args=(*OPTIONS, *GPU), **_settings(sample_data, tiny_lm)))
    assert _contents(out) == _contents(str(local_run))
    for job in jobs:
        assert _leaves(job) <= PRIMITIVES
        assert len(job.json()) < MOST
        assert job.proto_pipeline.ByteSize() < MOST
        (environment,) = job.proto_pipeline.components.environments.values()
        payload = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
        assert payload.container_image == "registry/project/cptsel:1"
        assert environment.resource_hints == {"beam:resources:min_ram_bytes:v1": b"32000000000"}
        sent = json.loads(job.json())
        assert sent["environment"]["serviceOptions"] == [GPU[1].partition("=")[2]]
        (pool,) = sent["environment"]["workerPools"]
        assert (pool["machineType"], pool["diskSizeGb"]) == ("g2-standard-8", 200)
    assert len(jobs) > 1  # so that no template, which is one job, can stand for the command


def test_select_is_jobs_that_dataflow_takes(jobs, bucket, local_run, tmp_path):
    options = {"runs": (str(local_run),), "method": "craig", "budget": "20%", "scope": "global", "neighbours": 8}
    select(SelectConfig(out=str(tmp_path / "here"), **options))
    hint = "--resource_hint=accelerator=type:nvidia-l4;count:1;install-nvidia-driver"
    select(SelectConfig(out=f"{bucket}/dataflow/replay", beam_args=(*OPTIONS, hint), **options))
    assert _contents(f"{bucket}/dataflow/replay") == _contents(str(tmp_path / "here"))
    assert all(_leaves(job) <= PRIMITIVES and len(job.json()) < MOST for job in jobs)
    for job in jobs:
        (environment,) = job.proto_pipeline.components.environments.values()
        assert environment.resource_hints == {"beam:resources:accelerator:v1": hint.split("=", 2)[2].encode()}
    assert len(jobs) > 1
