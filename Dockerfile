# A worker of Dataflow, or of Spark and Flink with --environment_type=DOCKER; docs/engines.md tells how to use it.
#
#     docker build -t IMAGE .
#     docker build -t IMAGE --build-arg MODEL=models/base --build-arg EXTRAS=gcs .
#     docker build -t IMAGE --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .
#
# Python and Beam must be of the versions of the machine that gives the command; the other packages are those of
# constraints.txt. Of torch it takes the build for CUDA, which needs no more than the driver of the machine, or that of an
# index that is named as above, which pip reads from the variable.
ARG PYTHON=3.11
ARG BEAM=2.77.0
FROM apache/beam_python${PYTHON}_sdk:${BEAM}

# A folder below this one, which the image has as /models/base; by default the small model of the sample data.
ARG MODEL=sample_data/tiny-lm
ARG EXTRAS=gcs,s3
ARG PIP_EXTRA_INDEX_URL

COPY LICENSE NOTICE README.md constraints.txt pyproject.toml /src/
COPY cli /src/cli
COPY pipeline /src/pipeline
COPY schemas /src/schemas
COPY src /src/src
RUN pip install --no-cache-dir -c /src/constraints.txt "/src[${EXTRAS}]"
COPY ${MODEL} /models/base
ENV OMP_NUM_THREADS=1
# The entry point is that of Beam's image. To give commands: docker run --entrypoint cptsel IMAGE embed ...
