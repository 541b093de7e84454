"""Options of an engine by which no worker with cptsel can come up are refused before anything is read."""

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from cptsel.pipeline.engine.beam import pipeline_options
from cptsel.pipeline.engine.environment import check_environment
from cptsel.pipeline.errors import UsageError

SPARK = "--runner=SparkRunner"
CLUSTER = (SPARK, "--spark_master_url=spark://master:7077")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((SPARK, "--environment_cache_milis=1"), "no option --environment_cache_milis=1 (after --); did you mean"),
        ((SPARK, "--enviroment_config", "x:1"), "did you mean --environment_config?"),
        ((SPARK, "--spark_jobserver_jar=x"), "did you mean --spark_job_server_jar?"),
        ((SPARK, "--environment_cache_millis=ten"), "--environment_cache_millis=ten: must be a whole number"),
        (("--runner=FlinkRunner", "--flink_version=9"), "take the options after --: argument --flink_version: invalid"),
        ((SPARK, "--environment_type=EXTRNAL"), "--environment_type=EXTRNAL: Beam has DOCKER, EXTERNAL"),
        ((SPARK, "--environment_type=external", "--environment_config=x:1"), "--environment_type=external: Beam has"),
        (
            (*CLUSTER, "--environment_type=EXTERNAL", "--environment_config=localhost"),
            "--environment_config=localhost: must be HOST:PORT of the worker pool",
        ),
        ((SPARK, "--environment_type=PROCESS", "--environment_config=x"), "--environment_config=x: must be JSON"),
        (CLUSTER, "Beam's own image, which workers have by default, has no cptsel; name one by"),
        ((*CLUSTER, "--environment_type=DOCKER"), "Beam's own image"),
        (("--runner=FlinkRunner", "--flink_master=host:8081"), "Beam's own image"),
    ],
)
def test_what_can_not_work_is_refused(options, sentence, capfd):
    with pytest.raises(UsageError) as caught:
        pipeline_options(options, 1)
    assert sentence in str(caught.value)
    assert capfd.readouterr().err == ""  # argparse would print the options of all runners


@pytest.mark.parametrize(
    "options",
    [
        (SPARK,),
        (SPARK, "--spark_master_url=local[*]", "--environment_cache_millis=600000"),
        # Options that job servers have, and Beam for Python has not.
        (SPARK, "--storage_level=MEMORY_ONLY", "--bundle_size=3", "--max_cache_memory_usage_percent=3"),
        ("--runner=FlinkRunner", "--max_bundle_size=3", "--checkpointing_interval=9", "--state_backend=x"),
        (*CLUSTER, "--environment_type=EXTERNAL", "--environment_config=localhost:50000"),
        (*CLUSTER, "--environment_type=EXTERNAL", "--environment_option=external_service_address=localhost:50000"),
        (*CLUSTER, "--environment_type=EXTERNAL", '--environment_config={"url": "localhost:50000"}'),
        (*CLUSTER, "--environment_type=PROCESS", '--environment_config={"command": "/boot"}'),
        (*CLUSTER, "--environment_type=DOCKER", "--environment_config=image"),
        (*CLUSTER, "--environment_type=DOCKER", "--environment_option=docker_container_image=image"),
        (*CLUSTER, "--requirements_file=requirements.txt"),
    ],
)
def test_what_may_work_is_let_through(options):
    pipeline_options(options, 1)


def test_workers_of_dataflow_need_an_image_with_cptsel():
    """Asked of the options alone: with Google's packages Beam would look for credentials and the bucket before."""
    with pytest.raises(UsageError, match=r"^--runner=DataflowRunner: Beam's own image.*by --sdk_container_image"):
        check_environment(PipelineOptions(["--runner=DataflowRunner"]))
    check_environment(PipelineOptions(["--runner=DataflowRunner", "--sdk_container_image=image"]))
