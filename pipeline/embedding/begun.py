"""The run that an earlier call began in ``--out``."""

from cptsel.pipeline import io
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import UsageError
from cptsel.schemas.headers import RunHeader
from cptsel.schemas.validation import validate


def begun_run(config: EmbedConfig) -> RunHeader | None:
    """Its ``run.json``; None where there is none, or ``--overwrite`` is to replace it.

    Raises:
        UsageError: the file is damaged.
    """
    path = io.join(config.out, "run.json")
    if config.overwrite or not io.exists(path):
        return None
    try:
        return validate(io.read_json(path), "run")
    except ValueError as error:
        what = str(error).removeprefix("run.json: ")
        raise UsageError(f"{path}: {what}; restore the file, or replace the run by --overwrite") from error
