"""Read an export by a trainer's own library, and print what it yields: a line of JSON a play, then its version.

    ENVIRONMENT/bin/python tests/trainers/read.py KIND FOLDER

Run by tests/test_trainers.py, in an environment that environments.py made. Of cptsel it has replay_dataset.py alone.
"""

import contextlib
import dataclasses
import importlib
import importlib.machinery
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any, ClassVar


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
    stand_in(
        {
            "torchvision": {},
            "torchvision.datasets": {"VisionDataset": object, "CIFAR10": object},
            "torchvision.transforms": {},
            "torchvision.transforms.functional": {"to_tensor": None},
        }
    )
    return importlib.import_module("streaming")


def streaming(folder: str) -> Iterator[Any]:
    """As a loader would."""
    for play in import_streaming().StreamingDataset(local=folder, shuffle=False, num_canonical_nodes=1, batch_size=4):
        yield {key: value if isinstance(value, str) else value.item() for key, value in play.items()}


def foundry(folder: str) -> Iterator[Any]:
    """Token ids of samples, without their padding."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(Path(folder).parent.joinpath("model.txt").read_text())
    tokenizer.pad_token = tokenizer.eos_token
    found = import_foundry().StreamingTextDataset(
        tokenizer=tokenizer, max_seq_len=64, local=folder, shuffle=False, num_canonical_nodes=1, batch_size=4
    )
    for sample in found:
        kept = zip(sample["input_ids"], sample["attention_mask"], strict=True)
        yield [token for token, mask in kept if mask]


def foundry_streams(folder: str) -> Iterator[Any]:
    """Folders and proportions of its mix."""
    import yaml

    settings = yaml.safe_load(Path(folder, "streams.yaml").read_text())
    found = import_foundry().build_streams(settings["streams"])
    yield [[stream.local for stream in found], [stream.proportion for stream in found]]


def import_foundry() -> Any:
    """llm-foundry's reading of texts, without Composer, which trains, and what else its packages import at load."""
    from transformers import PreTrainedTokenizerBase

    assert PreTrainedTokenizerBase  # before the stand-ins, which transformers must not find
    import_streaming()
    stand_in(
        {
            "datasets": {"Dataset": object, "IterableDataset": object},
            "composer": {},
            "composer.core": {},
            "composer.core.data_spec": {"DataSpec": object},
            "llmfoundry": {},
            "llmfoundry.data": {},
            "llmfoundry.registry": {},
            "llmfoundry.utils": {},
            "llmfoundry.utils.registry_utils": {"construct_from_registry": None},
        }
    )
    for name in ("llmfoundry", "llmfoundry.data"):
        root = distribution("llm-foundry").locate_file(name.replace(".", "/"))
        sys.modules[name].__path__ = [str(root)]
    return importlib.import_module("llmfoundry.data.text_data")


def torchtitan(folder: str) -> Iterator[Any]:
    """Token ids of the plays of two ranks, one after the other, with EOS behind each, from sequences of one token.

    The data set is declared by what the export's page has to paste.
    """
    from torchtitan.components.tokenizer import HuggingFaceTokenizer
    from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataset

    page = Path(folder).parent.joinpath("TRAINING.md").read_text().replace("EXPORT", str(Path(folder).parent))
    pasted: dict[str, Any] = {}
    exec(page.partition("# torchtitan\n")[2].partition("```python\n")[2].partition("```")[0], pasted)
    name, infinite = pasted["dataloader"].dataset, pasted["dataloader"].infinite
    tokenizer = HuggingFaceTokenizer(tokenizer_path=Path(folder).parent.joinpath("model.txt").read_text())
    for rank in range(2):
        found = HuggingFaceTextDataset(name, None, tokenizer, 1, dp_rank=rank, dp_world_size=2, infinite=infinite)
        document: list[int] = []
        for inputs, labels in found:
            document.append(inputs["input"].item())
            if labels.item() == tokenizer.eos_id:
                assert document.pop(0) == tokenizer.bos_id
                yield [*document, tokenizer.eos_id]
                document = []
        assert not document


def automodel(folder: str) -> Iterator[Any]:
    """Documents by number, by both readers of NeMo Automodel."""
    from nemo_automodel.components.datasets.llm.megatron.indexed_dataset import IndexedDataset

    yield from indexed(IndexedDataset, folder)


def automodel_blend(folder: str) -> Iterator[Any]:
    """Paths and weights of a blend."""
    from nemo_automodel.components.datasets.llm.megatron.megatron_utils import get_blend_from_list

    yield get_blend_from_list(Path(folder, "blend.txt").read_text().split())


def megatron(folder: str) -> Iterator[Any]:
    """Documents by number, by both of its readers."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    yield from indexed(IndexedDataset, folder)


def indexed(kind: Any, folder: str) -> Iterator[Any]:
    """Documents by number, by a reader that maps the file and by one that reads it."""
    mapped, read = (kind(f"{folder}/replay", mmap=mmap) for mmap in (True, False))
    assert len(mapped) == len(mapped.document_indices) - 1
    for number in range(len(mapped)):
        assert (mapped[number] == read[number]).all()
        yield mapped[number].tolist()


def megatron_zero_copy(folder: str) -> Iterator[Any]:
    """The sequences of every file, by both of its readers; and its blend, as the trainer parses it."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import get_blend_from_list

    blend = json.loads(Path(folder, "blend.json").read_text())
    assert (blend["valid"], blend["test"]) == (None, None)
    paths, weights = get_blend_from_list(blend["train"])
    for path, weight in zip(paths, weights, strict=True):
        mapped, read = (IndexedDataset(f"{Path(folder).parent}/{path}", mmap=mmap) for mmap in (True, False))
        assert all((mapped[number] == read[number]).all() for number in range(len(mapped)))
        yield [path, weight, [mapped[number].tolist() for number in range(len(mapped))]]


def megatron_merged(folder: str) -> Iterator[Any]:
    """Of every file, the sequences that are still the same once its own library has merged it into a new one."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    for index in sorted(Path(folder).glob("*.idx")):
        prefix = str(index.with_suffix(""))
        builder = IndexedDatasetBuilder(f"{prefix}-merged.bin", dtype=IndexedDataset(prefix).index.dtype)
        builder.add_index(prefix)
        builder.finalize(f"{prefix}-merged.idx")
        merged, before = IndexedDataset(f"{prefix}-merged"), IndexedDataset(prefix)
        places = zip(merged.index.sequence_pointers, before.index.sequence_pointers, strict=True)
        yield [bool(now == then) for now, then in places]


def megatron_blend(folder: str) -> Iterator[Any]:
    """Paths and weights of a file of --data-args-path."""
    from megatron.core.datasets.utils import get_blend_from_list

    yield get_blend_from_list(Path(folder, "blend.txt").read_text().split())


def olmo_mixture(folder: str) -> Iterator[Any]:
    """Sources and ratios."""
    from olmo_core.data.source_mixture import SourceMixtureList

    found = SourceMixtureList.from_yaml(f"{folder}/mixture.yaml")
    found.validate()
    yield [[path for source in found.sources for path in source.paths], [s.target_ratio for s in found.sources]]


def datatrove(folder: str) -> Iterator[Any]:
    """Tokens one by one, each after its place in its document; they begin anew where a document ends."""
    from datatrove.utils.dataset import DatatroveFolderDataset

    found = DatatroveFolderDataset(folder, seq_len=0, token_size=2, return_positions=True)
    document: list[int] = []
    window = DatatroveFolderDataset(folder, seq_len=len(found) - 1, token_size=2, return_positions=True)[0]
    assert [found[number]["input_ids"].item() for number in range(len(found))] == window["input_ids"].tolist()
    for place, token in zip(window["positions"].tolist(), window["input_ids"].tolist(), strict=True):
        if place == 0 and document:
            yield document
            document = []
        document.append(token)
    yield document


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


def swift(folder: str) -> Iterator[Any]:
    """Texts, and what each token of the pre-training stage weighs, as its data loader reads them."""
    from swift.arguments import PretrainArguments
    from swift.dataset import load_dataset
    from swift.model import get_processor
    from swift.template import get_template

    model = Path(folder).parent.joinpath("model.txt").read_text()
    declared = {field.name: field.default for field in dataclasses.fields(PretrainArguments)}
    for name in ("dataset_shuffle", "train_dataloader_shuffle", "is_binary_loss_scale"):
        assert name in declared
    found, _ = load_dataset(f"{folder}/replay.jsonl", shuffle=False)
    processor = get_processor(model, model_type="llama")
    template = get_template(
        processor,
        template_type="dummy",
        use_chat_template=declared["use_chat_template"],
        loss_scale=declared["loss_scale"],
        is_binary_loss_scale=False,
        max_length=64,
    )
    template.set_mode("train")
    for row in found:
        encoded = template.encode(row)
        yield {
            "text": row["messages"][0]["content"],
            **{name: encoded[name] for name in ("input_ids", "labels", "loss_scale")},
        }


def llamafactory(folder: str) -> Iterator[Any]:
    """Token ids of the pre-training stage; it imports what reads sound, and wants an older transformers."""
    os.environ["DISABLE_VERSION_CHECK"] = "1"
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, PreTrainedModel, Seq2SeqTrainingArguments

    assert DataCollatorForSeq2Seq
    assert PreTrainedModel  # before the stand-in, which transformers must not find
    stand_in({"torchaudio": {}})
    from llamafactory.data.loader import get_dataset
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, FinetuningArguments, ModelArguments

    model = Path(folder).parent.joinpath("model.txt").read_text()
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert FinetuningArguments(stage="pt", disable_shuffling=True).disable_shuffling
    data = DataArguments(dataset_dir=folder, dataset="replay", packing=False, cutoff_len=64, overwrite_cache=True)
    training = Seq2SeqTrainingArguments(output_dir=str(Path(folder).parent / "trained"), use_cpu=True, do_train=True)
    template = get_template_and_fix_tokenizer(tokenizer, data)
    found = get_dataset(
        template, ModelArguments(model_name_or_path=model), data, training, stage="pt", tokenizer=tokenizer
    )
    for row in found["train_dataset"]:
        yield row["input_ids"]


def trl(folder: str) -> Iterator[Any]:
    """Token ids of batches, as the loader of SFTTrainer deals them out for training."""
    from datasets import load_from_disk
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = Path(folder).parent.joinpath("model.txt").read_text()
    with tempfile.TemporaryDirectory() as work:
        settings = SFTConfig(
            output_dir=work,
            dataset_text_field="text",
            packing=False,
            max_length=64,
            train_sampling_strategy="sequential",
            per_device_train_batch_size=4,
            num_train_epochs=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
        )
        tokenizer = AutoTokenizer.from_pretrained(model)
        trainer = SFTTrainer(model, settings, train_dataset=load_from_disk(folder), processing_class=tokenizer)
        for batch in trainer.get_train_dataloader():
            for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
                kept = ids[mask.bool()].tolist()
                assert labels[mask.bool()].tolist() == kept
                yield kept


def trainer(folder: str) -> Iterator[Any]:
    """Token ids of batches, as the loader of the Hugging Face Trainer deals them out for training."""
    from datasets import load_from_disk
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    model = Path(folder).parent.joinpath("model.txt").read_text()
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    replay = load_from_disk(folder).with_transform(lambda plays: tokenizer(plays["text"]))
    with tempfile.TemporaryDirectory() as work:
        settings = TrainingArguments(
            work,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            num_train_epochs=1,
            per_device_train_batch_size=4,
            use_cpu=True,
            report_to=[],
        )
        collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        found = Trainer(
            AutoModelForCausalLM.from_pretrained(model), settings, train_dataset=replay, data_collator=collate
        )
        for batch in found.get_train_dataloader():
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                yield ids[mask.bool()].tolist()


def energon(folder: str) -> Iterator[Any]:
    """Samples of one epoch on one worker, without shuffling, once a copy of the folder is prepared as it wants it."""
    from megatron.energon import Cooker, DefaultTaskEncoder, WorkerConfig, get_loader, get_train_dataset
    from megatron.energon.flavors import BaseWebdatasetFactory
    from megatron.energon.task_encoder import stateless

    @stateless
    def play(sample: Any) -> Any:
        facts = sample["json"]
        return {"text": sample["txt"], **(facts if isinstance(facts, dict) else json.loads(facts))}

    class Plays(DefaultTaskEncoder):  # type: ignore[misc]
        cookers: ClassVar = [Cooker(play)]

    with tempfile.TemporaryDirectory() as work:
        copy = Path(shutil.copytree(folder, Path(work, "data")))
        tars = sorted(path.name for path in copy.glob("*.tar"))
        ratio = [("train", 1.0), ("val", 0.0), ("test", 0.0)]
        BaseWebdatasetFactory.prepare_dataset(copy, tars, split_parts_ratio=ratio, shuffle_seed=None, workers=1)
        declared = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
        (copy / ".nv-meta/dataset.yaml").write_text(json.dumps(declared))
        found = get_train_dataset(
            copy,
            worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
            batch_size=None,
            shuffle_buffer_size=None,
            max_samples_per_sequence=None,
            shuffle_over_epochs_multiplier=None,
            parallel_shard_iters=1,
            repeat=False,
            task_encoder=Plays(),
        )
        yield from get_loader(found)


def axolotl(folder: str) -> Iterator[Any]:
    """Token ids of its training set, as its command line prepares it; what counts, packs and quantises is not there."""
    os.environ["AXOLOTL_DO_NOT_TRACK"] = "1"
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    stand_in(
        {
            "posthog": {},
            "numba": {"njit": lambda function: function},
            "bitsandbytes": {},
            "bitsandbytes.nn": {"Linear4bit": object, "Params4bit": object},
            "fastcore": {},
            "fastcore.parallel": {"parallel": None},
            "termcolor": {"colored": lambda text, *_, **__: text},
        }
    )
    from axolotl.utils.data.sft import prepare_datasets
    from axolotl.utils.dict import DictDefault
    from transformers import AutoTokenizer

    model = Path(folder).parent.joinpath("model.txt").read_text()
    with tempfile.TemporaryDirectory() as work:
        settings = DictDefault(
            {
                "datasets": [{"path": folder, "type": "completion", "field": "text"}],
                "shuffle_merged_datasets": False,
                "curriculum_sampling": True,
                "sample_packing": False,
                "sequence_len": 64,
                "dataset_prepared_path": work,
                "dataset_num_proc": 1,
                "val_set_size": 0,
                "num_epochs": 1,
                "micro_batch_size": 4,
                "gradient_accumulation_steps": 1,
                "batch_size": 4,
                "base_model": model,
                "tokenizer_config": model,
                "seed": 1,
            }
        )
        found, *_ = prepare_datasets(settings, AutoTokenizer.from_pretrained(model))
        for row in found:
            assert row["labels"] == row["input_ids"]
            yield row["input_ids"]


def llamafactory_v1(folder: str) -> Iterator[Any]:
    """Texts, and what each token weighs."""
    from llamafactory.v1.core.data_engine import DataEngine
    from llamafactory.v1.core.utils.rendering import Renderer
    from transformers import AutoTokenizer

    model = Path(folder).parent.joinpath("model.txt").read_text()
    table = Path(folder).parent / "datasets.yaml"
    table.write_text(json.dumps({"replay": {"path": f"{folder}/replay.jsonl", "source": "local"}}))
    found = DataEngine(str(table))
    renderer = Renderer("chatml", AutoTokenizer.from_pretrained(model))
    for number in range(len(found)):
        (encoded,) = renderer.process_samples([found[number]])
        yield {
            "text": found[number]["messages"][0]["content"][0]["value"],
            **{name: encoded[name] for name in ("input_ids", "labels", "loss_weights")},
        }


def mlcroissant(folder: str) -> Iterator[Any]:
    """What checking the metadata says, then the records, where the library knows the type of their files."""
    from mlcroissant import Dataset

    found = Dataset(f"{folder}/croissant.json")
    issues = found.metadata.ctx.issues
    yield {"errors": sorted(issues.errors), "warnings": sorted(issues.warnings)}
    (kind,) = {tuple(part.encoding_formats) for part in found.metadata.file_sets[:1]}
    readable = kind in (("application/x-parquet",), ("application/jsonlines",))
    for records in found.metadata.record_sets if readable else []:
        for record in found.records(records.uuid):
            yield {name.partition("/")[2]: decoded(value) for name, value in record.items()}


def decoded(value: Any) -> Any:
    """A value whose texts are strings."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def stand_in(modules: dict[str, dict[str, Any]]) -> None:
    """Put empty modules in place of what a library imports at load and text does not need."""
    for name, members in modules.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(members)
        sys.modules[name] = module


def replay_dataset() -> Any:
    """The file that a trainer may copy, by its path, as where there is no cptsel."""
    path = Path(__file__).parents[2] / "src/cptsel/replay_dataset.py"
    spec = importlib.util.spec_from_file_location("replay_dataset", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PACKAGES = {
    "streaming": "mosaicml-streaming",
    "energon": "megatron-energon",
    "automodel": "nemo-automodel",
    "automodel_blend": "nemo-automodel",
    "foundry": "llm-foundry",
    "foundry_streams": "llm-foundry",
    "megatron": "megatron-core",
    "olmo": "ai2-olmo-core",
    "swift": "ms-swift",
    "trainer": "transformers",
    "llamafactory_v1": "llamafactory",
    "megatron_blend": "megatron-core",
    "megatron_zero_copy": "megatron-core",
    "megatron_merged": "megatron-core",
    "olmo_mixture": "ai2-olmo-core",
}

if __name__ == "__main__":
    kind, where = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):  # some show their progress
        package = PACKAGES.get(kind, kind)
        found = [*globals()[kind](where), {package: version(package)}]
    for item in found:
        print(json.dumps(item))
