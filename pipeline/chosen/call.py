"""What calls that run a model over the chosen samples share: what is settled before, and what is written after."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar, cast

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import Manifest, load_manifest
from cptsel.pipeline.artifacts.writing import check_apart, check_output, commit
from cptsel.pipeline.chosen.config import DistillConfig, FisherConfig
from cptsel.pipeline.chosen.model import ResolvedModel, release, resolve_model, with_absolute_paths
from cptsel.pipeline.chosen.units import ChosenSamples, ReadWindows, Unit
from cptsel.pipeline.config import check_read, check_values
from cptsel.pipeline.engine.beam import is_local
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.steps import Steps
from cptsel.schemas.headers import ModelAt
from cptsel.schemas.validation import validate

Config = TypeVar("Config", DistillConfig, FisherConfig)


@dataclass(frozen=True)
class Call(Generic[Config]):
    """What is known before anything is written.

    Attributes:
        config: checked, with absolute paths.
        manifest: whose samples the model sees.
        model: at which they are seen.
        steps: where units run.
        began: seconds, from any fixed point.
    """

    config: Config
    manifest: Manifest
    model: ResolvedModel
    steps: Steps
    began: float

    def read(self, chosen: ChosenSamples) -> ReadWindows:
        """How workers read the samples of a unit."""
        return ReadWindows(chosen, self.manifest.text_field, self.model.tokens, bool(self.model.facts["prefix"]))

    def run(self, step: str, write: Callable[[Unit], Any], units: Sequence[Unit]) -> list[Any]:
        """Run a function on every unit; the model is then let go of, where workers are this process."""
        try:
            return self.steps.run(step, write, units)
        finally:
            release()


def open_call(
    command: Literal["distill", "fisher"], config: Config, progress: Progress | None, make_steps: Callable[..., Steps]
) -> Call[Config]:
    """Check options and directories, and look at the manifest and the model.

    Raises:
        UsageError: an option, a model or an output that can't be used, or an input that is not a finished manifest.
    """
    began = time.monotonic()
    config = replace(config, **cast(Any, with_absolute_paths(config)))
    check_values(config)
    check_read(config)
    manifest = load_manifest(config.replay)
    check_apart(config.out, manifest.directory)
    if os.path.isdir(config.model):
        check_apart(config.out, config.model)
    check_output(config.out, command, overwrite=config.overwrite, resumes=True)  # before the weights are hashed
    steps = make_steps(io.join(config.out, outputs.WORK), config.beam_args, config.workers, progress)
    return Call(config, manifest, resolve_model(manifest, config, is_local(steps.options)), steps, began)


def finish(call: Call[Any], name: str, header: Mapping[str, Any]) -> None:
    """Write the header, checksums and figures of a finished output, and mark it so.

    Args:
        call: that made it.
        name: of the header's file, without ``.json``.
        header: with ``files``, which have a ``sha256`` each.
    """
    out = call.config.out
    path = io.join(out, f"{name}.json")
    io.write_json(path, header)
    sums = {file: entry["sha256"] for file, entry in header["files"].items()}
    sums |= {f"{name}.json": outputs.hash_file(path)[0]}
    io.write_bytes(io.join(out, outputs.SUMS), outputs.sums_text(sums).encode())
    io.write_json(io.join(out, outputs.STATS), validate({"seconds": time.monotonic() - call.began}, "stats"))
    commit(out)


def told_of_model(facts: ModelAt) -> dict[str, Any]:
    """What a result says of the model."""
    model = f"{facts['source']} ({facts['class']}, {facts['dtype']})"
    return {"model": model, "is_of_the_manifest": facts["of_manifest"]}
