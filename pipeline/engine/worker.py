"""A worker process of the local runner, started by Beam as ``python -m cptsel.pipeline.engine.worker LIFELINE``.

It is Beam's own worker but for two things. What it logs goes to the process that started it and nowhere else: left
alone, Beam prints some thirty lines a worker on stderr. And it ends at once when that process ends or lets go of the
lifeline: left alone, it would finish its block, for minutes perhaps, and the command would wait for it.
"""

import logging
import os
import sys
import threading


def main(lifeline: str) -> None:
    """Set up logging before Beam does, and serve until the runner is done.

    Args:
        lifeline: a named pipe that the parent holds open for writing; when nobody does, reading it ends.
    """
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    logging.getLogger().addHandler(logging.NullHandler())  # with a handler there, nothing adds one for stderr
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])
    os._exit(0)  # see cli.main.run


def _end_with(lifeline: str) -> None:
    try:
        descriptor = os.open(lifeline, os.O_RDONLY | os.O_NONBLOCK)  # or opening would wait where nobody writes
        os.set_blocking(descriptor, True)
        os.read(descriptor, 1)
    finally:  # the end of the pipe, or no pipe any more
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
