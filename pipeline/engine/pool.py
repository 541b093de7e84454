"""Worker processes for an engine with ``--environment_type=EXTERNAL``, on each of its machines.

    python -m cptsel.pipeline.engine.pool --service_port=50000

It is Beam's own pool, with three changes:

* Workers are started by the Python that runs this, which has cptsel. Beam's takes the first ``python`` of ``PATH``, and
  a job waits for ever for one that can't start.
* It listens on the loopback interface alone, where the engine's processes of the same machine find it. Whoever reaches
  the port can run code here.
* SIGTERM ends its workers too.
"""

import signal
import subprocess
import sys
from typing import Any

from apache_beam.runners.worker import worker_pool_main

from cptsel.pipeline.engine.loopback import keep_to_loopback


class _Subprocess:
    """The module subprocess, but for the Python that it starts."""

    def Popen(self, command: list[str], **kwargs: Any) -> "subprocess.Popen[bytes]":
        # Beam would give workers a pipe for stdout that nobody reads, and that fills.
        return subprocess.Popen([sys.executable, *command[1:]], **(kwargs | {"stdout": sys.stderr}))

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


def main(arguments: list[str]) -> None:
    """Serve until a signal ends it.

    Args:
        arguments: those of Beam's pool, of which ``--service_port`` is needed.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    keep_to_loopback(worker_pool_main)
    worker_pool_main.subprocess = _Subprocess()
    worker_pool_main.main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
