"""A worker process of the local runner, started by Beam as ``python -m cptsel.pipeline.engine.worker LIFELINE``.

It is Beam's own worker, with two changes:

* What it logs goes to the process that started it, and not to stderr as well.
* It ends at once when that process ends or closes the lifeline. Beam's would finish its block first, and the command
  would wait for it.
"""

import logging
import os
import sys
import threading


def main(lifeline: str) -> None:
    """Set up logging before Beam does, and serve until the runner is done.

    Args:
        lifeline: a named pipe that the parent holds open for writing; reading ends when the parent closes it or ends.
    """
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    logging.getLogger().addHandler(logging.NullHandler())  # so that Beam adds none for stderr
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])
    os._exit(0)  # see cli.main.run


def _end_with(lifeline: str) -> None:
    try:
        descriptor = os.open(lifeline, os.O_RDONLY | os.O_NONBLOCK)  # opening must not wait for a writer
        os.set_blocking(descriptor, True)
        os.read(descriptor, 1)
    finally:  # the pipe was closed, or is gone
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
