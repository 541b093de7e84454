"""Of a runner's long text the line that tells what went wrong."""

import grpc
import pytest

from cptsel.pipeline.engine.cause import cause_of

JAVA = """Pipeline BeamApp-1 failed in state FAILED: org.apache.spark.SparkException: Job aborted due to stage failure
\tat org.apache.spark.executor.Executor.run(Executor.scala:624)
Caused by: io.grpc.StatusRuntimeException: UNAVAILABLE: io exception
\tat io.grpc.stub.ClientCalls.toStatusRuntimeException(ClientCalls.java:268)
Caused by: io.netty.AnnotatedConnectException: finishConnect(..) failed: Connection refused: localhost/127.0.0.1:80
Caused by: java.net.ConnectException: finishConnect(..) failed: Connection refused
\tat io.netty.Errors.newConnectException0(Errors.java:166)

Driver stacktrace:"""
PYTHON = """Pipeline B failed in state FAILED: java.lang.RuntimeException: Error: Traceback (most recent call last):
  File "tasks.py", line 7, in process
ValueError: no such column: x [while running 'Call']

\tat java.base/java.util.concurrent.CompletableFuture.reportGet(CompletableFuture.java:396)
Caused by: java.lang.RuntimeException: Error received from SDK harness
\t... 5 more
Driver stacktrace:"""


class _Answer(grpc.RpcError):
    def details(self):
        return "Cannot deserialize value: not a valid integer"

    def __str__(self):
        return "<_Answer of RPC that terminated with:\n\tdetails\n>"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            RuntimeError(JAVA),
            "io.netty.AnnotatedConnectException: finishConnect(..) failed: Connection refused: localhost/127.0.0.1:80",
        ),
        (RuntimeError(PYTHON), "ValueError: no such column: x [while running 'Call']"),
        (
            RuntimeError("Pipeline P_1 failed in state FAILED: org.apache.spark.SparkException: no master 'x'"),
            "org.apache.spark.SparkException: no master 'x'",
        ),
        (RuntimeError("Traceback (most recent call last):\n  File x\nMemoryError: 3 bytes\n"), "MemoryError: 3 bytes"),
        (RuntimeError("org.apache.Failed: because\n\tat org.apache.Here\n"), "org.apache.Failed: because"),
        (_Answer(), "Cannot deserialize value: not a valid integer"),
        (MemoryError(), "MemoryError"),
        (OSError("x" * 1000), "x" * 300),
    ],
)
def test_the_line_that_tells_most(error, cause):
    assert cause_of(error) == cause
