"""Steps whose findings come back through temporary files, so that what is checked may lie where nothing is written."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from cptsel.pipeline import io
from cptsel.pipeline.engine.beam import is_local, pipeline_options
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.verification.config import VerifyConfig


@contextmanager
def scratch_steps(directory: str, config: VerifyConfig, progress: Progress | None) -> Iterator[Steps]:
    """Steps with a work directory that is gone afterwards.

    Args:
        directory: what is checked. Workers on other machines share no temporary directory with this one, but must reach
            this, so their work directory lies beside it.
        config: Beam's options and workers.
        progress: told how far a step is.
    """
    if is_local(pipeline_options(config.beam_args, config.workers)):
        work = tempfile.mkdtemp(prefix="cptsel-verify-")
    else:
        work = f"{directory.rstrip('/')}.verify-{uuid.uuid4().hex[:8]}"
    try:
        yield Steps(work, config.beam_args, config.workers, progress)
    finally:
        io.delete_tree(work)
