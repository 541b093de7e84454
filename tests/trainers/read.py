"""Read an export by a trainer's own library, and print what it yields: a line of JSON a play, then the version.

    ENVIRONMENT/bin/python tests/trainers/read.py KIND FOLDER

Run by tests/test_trainers.py, in an environment that environments.py made. Of cptsel it has replay_dataset.py alone.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import json
import sys
import tempfile
import types
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any


def webdataset(folder: str) -> Iterator[Any]:
    """By streaming tar files."""
    from webdataset import WebDataset

    shards = json.loads(Path(folder, "shards.json").read_text())["shardlist"]
    urls = [f"{folder}/{shard['url']}" for shard in shards]
    for text, facts in WebDataset(urls, shardshuffle=False).decode().to_tuple("txt", "json"):
        yield {"text": text, **facts}


def wids(folder: str) -> Iterator[Any]:
    """By number, last first."""
    from wids import ShardListDataset

    with tempfile.TemporaryDirectory() as cache:
        found = ShardListDataset(f"{folder}/shards.json", cache_dir=cache, keep=True)
        plays = [found[number] for number in reversed(range(len(found)))]
    for play in reversed(plays):
        yield {"text": play[".txt"], **play[".json"]}


def import_streaming() -> Any:
    """MosaicML's library, without the images that it imports at load."""
    for name, members in {
        "torchvision": {},
        "torchvision.datasets": {"VisionDataset": object, "CIFAR10": object},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {"to_tensor": None},
    }.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(members)
        sys.modules[name] = module
    return importlib.import_module("streaming")


def streaming(folder: str) -> Iterator[Any]:
    """As a loader would."""
    for play in import_streaming().StreamingDataset(local=folder, shuffle=False, num_canonical_nodes=1, batch_size=4):
        yield {key: value if isinstance(value, str) else value.item() for key, value in play.items()}


def megatron(folder: str) -> Iterator[Any]:
    """Documents by number, by both of its readers."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    mapped, read = (IndexedDataset(f"{folder}/replay", mmap=mmap) for mmap in (True, False))
    assert len(mapped) == len(mapped.document_indices) - 1
    for number in range(len(mapped)):
        assert (mapped[number] == read[number]).all()
        yield mapped[number].tolist()


def olmo(folder: str) -> Iterator[Any]:
    """An instance a play, without its padding."""
    from olmo_core.data import NumpyPaddedFSLDatasetConfig, TokenizerConfig

    facts = json.loads(Path(folder).parent.joinpath("facts.json").read_text())
    tokenizer = TokenizerConfig(vocab_size=facts["size"], eos_token_id=facts["eos"], pad_token_id=facts["size"] - 1)
    with tempfile.TemporaryDirectory() as work:
        dataset = NumpyPaddedFSLDatasetConfig(
            tokenizer=tokenizer, paths=[f"{folder}/replay.npy"], sequence_length=64, work_dir=work
        ).build()
        dataset.prepare()
        for number in range(len(dataset)):
            instance = dataset[number]
            yield instance["input_ids"][instance["label_mask"]].tolist()


def grain(folder: str) -> Iterator[Any]:
    """ReplayDataset as a source of grain, a slice a process, as torchtitan and MaxText take it."""
    import grain.python as pygrain

    source = replay_dataset().ReplayDataset(folder)
    yield from pygrain.MapDataset.source(source).to_iter_dataset()


def torchdata(folder: str) -> Iterator[Any]:
    """ReplayDataset as a node that is stopped in the middle and goes on from its state."""
    from torch.utils.data import SequentialSampler
    from torchdata.nodes import Loader, MapStyleWrapper

    source = replay_dataset().ReplayDataset(folder)

    def loader() -> Any:
        return Loader(MapStyleWrapper(map_dataset=source, sampler=SequentialSampler(source)))

    first = loader()
    plays = iter(first)
    for _ in range(len(source) // 2):
        yield next(plays)
    second = loader()
    second.load_state_dict(first.state_dict())
    yield from second


def litdata(folder: str) -> Iterator[Any]:
    """The Parquet files themselves."""
    from litdata import StreamingDataset, index_parquet_dataset
    from litdata.streaming.item_loader import ParquetLoader

    with tempfile.TemporaryDirectory() as cache:
        index_parquet_dataset(folder, cache)
        path = Path(cache, "index.json")
        index = json.loads(path.read_text())
        index["chunks"].sort(key=lambda chunk: chunk["filename"])  # it lists them as the disk does
        path.write_text(json.dumps(index))
        yield from StreamingDataset(folder, item_loader=ParquetLoader(), index_path=cache, shuffle=False)


def replay_dataset() -> Any:
    """The file that a trainer may copy, by its path, as where there is no cptsel."""
    path = Path(__file__).parents[2] / "src/cptsel/replay_dataset.py"
    spec = importlib.util.spec_from_file_location("replay_dataset", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PACKAGES = {"streaming": "mosaicml-streaming", "megatron": "megatron-core", "olmo": "ai2-olmo-core"}

if __name__ == "__main__":
    kind, where = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):  # some show their progress
        found = [*globals()[kind](where), version(PACKAGES.get(kind, kind))]
    for item in found:
        print(json.dumps(item))
