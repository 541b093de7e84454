"""Each kind of thing can be added by one class or one entry: everything else follows from the registries."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace

import click
import numpy as np
import pytest
import torch
from export_tampering import reseal_export
from manifest_builder import build_replay
from selection_builder import choose, read_samples

from cptsel.cli._options import config_parameters
from cptsel.cli.main import main
from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.config import ReadBy, check_read, check_values, option, options_of, resolve, to_yaml
from cptsel.pipeline.corpus.formats.base import CorpusFormat, lost
from cptsel.pipeline.corpus.formats.registry import FORMATS, file_format, known_suffixes
from cptsel.pipeline.corpus.types import Block, BlockBuilder, Document, DocumentBlock
from cptsel.pipeline.embedding.block import BlockEmbedder, RowOptions
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.plan import plan_model
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.lines import read_lines
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.kernels.gradients.batch import BatchGradients
from cptsel.pipeline.model.gradients.base import GradientKind
from cptsel.pipeline.model.gradients.registry import GRADIENTS
from cptsel.pipeline.selection.methods import METHODS, Draw
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


class Toy(CorpusFormat):
    """A document a line, as it is."""

    name = "toy"
    suffixes = (".toy",)

    def finder(self, options, compression, companion):
        return _Lines()

    def read_block(self, handle, shard, block, options):
        builder = BlockBuilder(shard, block.block, options)
        for number, line in enumerate(handle.read().decode().splitlines()):
            builder.add(Document(number, None, line, (None,) * len(options.group_by), None, None))
        return builder.build(last=True)

    def read_texts(self, handle, uri, compression, options, rows):
        lines = handle.read().decode().splitlines()
        for row_index, _, _ in rows:
            if row_index >= len(lines):
                raise lost(uri, row_index, "the file is shorter")
            yield row_index, lines[row_index]


class _Lines:
    def __init__(self):
        self.count = 0

    def feed(self, chunk):
        self.count += chunk.count(b"\n")

    def finish(self, handle):
        return (Block(0, 0, handle.tell(), 0, self.count),)


def test_a_corpus_format_is_one_class(tmp_path, tiny_lm, monkeypatch, capsys):
    monkeypatch.setitem(FORMATS, "toy", Toy())
    assert file_format("a.toy") == ("toy", "none")
    assert known_suffixes().endswith("and .toy")
    texts = [f"This is document number {n}, which measures and weighs. " * 3 for n in range(20)]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.toy").write_text("".join(f"{text}\n" for text in texts))
    for argv in (
        ["embed", f"{tmp_path}/corpus/*.toy", "--model", str(tiny_lm), "--out", f"{tmp_path}/run"],
        ["select", f"{tmp_path}/run", "--method", "uniform", "--budget", "40%", "--out", f"{tmp_path}/replay"],
        ["verify", f"{tmp_path}/replay", "--sources"],
        ["export", f"{tmp_path}/replay", "--out", f"{tmp_path}/export"],
    ):
        assert main(argv) == 0, capsys.readouterr().err
    assert load_manifest(f"{tmp_path}/replay").shards()["format"].to_pylist() == ["toy"]
    (tmp_path / "corpus" / "a.toy").write_text("shorter\n")
    assert main(["verify", f"{tmp_path}/replay", "--sources"]) == 4
    assert "the file is shorter" in " ".join(capsys.readouterr().out.split())


class Texts(ExportFormat):
    """A text a line, as JSON strings, and nothing else."""

    name = "texts"
    summary = "a text a line"
    suffix = ".txt"
    keeps = ("text",)

    def write(self, path, records, vocabulary):
        io.write_bytes(path, "".join(json.dumps(record["text"]) + "\n" for record in records).encode())
        return [path]

    def read(self, path):
        return ({"text": json.loads(line)} for line in io.read_bytes(path).splitlines())


@pytest.mark.parametrize("curriculum", [False, True])
def test_an_export_is_one_class(tmp_path, monkeypatch, curriculum):
    """A curriculum merges what shards wrote, whatever the format."""
    monkeypatch.setitem(EXPORTS, "texts", Texts())
    built = build_replay(tmp_path, shards=3, curriculum=curriculum)
    for to in ("texts", "jsonl"):
        assert main(["export", str(built.replay), "--to", "jsonl", "--out", str(tmp_path / to)]) == 0
        export(ExportConfig(replay=str(built.replay), to=to, out=str(tmp_path / to), overwrite=True))
    assert inspect(str(tmp_path / "texts")).totals["format"] == "texts"
    plain = "".join(path.read_text() for path in sorted((tmp_path / "texts").rglob("*.txt")))
    lines = [line for path in sorted((tmp_path / "jsonl").rglob("*.zst")) for line in read_lines(path.read_bytes())]
    assert [json.loads(line) for line in plain.splitlines()] == [json.loads(line)["text"] for line in lines]
    changed = next((tmp_path / "texts").rglob("*.txt"))
    for replay in (None, str(built.replay)):
        assert verify(VerifyConfig(directory=str(tmp_path / "texts"), replay=replay)).status == "verified"
    changed.write_text(changed.read_text().replace("a", "b", 1))
    reseal_export(tmp_path / "texts")
    assert verify(VerifyConfig(directory=str(tmp_path / "texts"))).status == "verified"
    with pytest.raises(VerificationError, match="the text is not what was chosen"):
        verify(VerifyConfig(directory=str(tmp_path / "texts"), replay=str(built.replay)))
    (tmp_path / "texts" / "data" / "mine.csv").write_text("not of this command")
    with pytest.raises(UsageError, match=r"mine\.csv, which cptsel export did not write"):
        export(ExportConfig(replay=str(built.replay), to="texts", out=str(tmp_path / "texts"), overwrite=True))
    with pytest.raises(UsageError, match=f"--to csv: must be one of {', '.join(EXPORTS)}"):
        export(ExportConfig(replay=str(built.replay), to="csv", out=str(tmp_path / "csv")))


class Last(GradientKind):
    """Of the last hidden state alone: a projection of what stands there."""

    name = "last"

    def of_batch(self, tokens, lengths):
        hidden = self.model.hidden(tokens[:, :-1], lengths)
        last = hidden[torch.arange(len(lengths)), lengths - 1].float()
        spec = self.model.spec
        return BatchGradients(
            last[:, : spec.sketch_dim], last[:, -spec.validation_dim :], lengths.float(), exact_norm=None
        )


def test_the_command_offers_every_gradient_kind():
    assert tuple(options_of(EmbedConfig)["gradient"].choices) == tuple(GRADIENTS)


def test_a_gradient_kind_is_one_class(tiny_lm, monkeypatch):
    monkeypatch.setitem(GRADIENTS, "last", Last)
    config = EmbedConfig(inputs=(), model=str(tiny_lm), out="", sketch_dim=16, validation_dim=8, max_tokens=32)
    plan = plan_model(config)
    rows = RowOptions(plan.max_tokens, plan.tokens_per_batch, config.storage, ())
    documents = [Document(i, None, f"Document {i} measures and weighs.", (), None, None) for i in range(4)]
    block = DocumentBlock(0, 0, 4, documents, [], True)
    tables = [
        BlockEmbedder(replace(plan.spec, gradient=name), rows).embed("a.jsonl", block).embeddings
        for name in ("head", "last")
    ]
    ids = [table["sample_id"].to_pylist() for table in tables]
    assert ids[0] == ids[1]
    directions = [np.array(table["direction"].to_pylist(), np.float32) for table in tables]
    assert directions[0].shape == directions[1].shape == (4, 16)
    assert not np.allclose(directions[0], directions[1], atol=0.1)


def shortest_first(columns: Mapping[str, np.ndarray], by: str = "norm") -> np.ndarray:
    return 1.0 / columns["n_tokens"] ** 8


def test_a_method_of_a_family_is_one_entry(run, tmp_path, monkeypatch):
    method = Draw(summary="draws the shortest", source="here", scores=shortest_first)
    monkeypatch.setitem(METHODS, "shortest", method)
    choose(run, tmp_path / "uniform", method="uniform")
    choose(run, tmp_path / "shortest", method="shortest")
    means = [np.mean(read_samples(tmp_path / name)["n_tokens"]) for name in ("shortest", "uniform")]
    assert means[0] < 0.7 * means[1]
    assert set(read_samples(tmp_path / "shortest")["method"].to_pylist()) == {"shortest"}
    with pytest.raises(UsageError, match="--neighbours is read by craig and kmedoids; leave it out"):
        choose(run, tmp_path / "refused", method="shortest", neighbours=3)


def test_help_and_documentation_list_what_is_new(repository):
    """In a process of its own, as a command's options are made when it is imported."""
    code = """
        import runpy, sys
        from pathlib import Path
        from cptsel.pipeline.selection.methods import METHODS, Cover
        from cptsel.pipeline.corpus.formats.registry import FORMATS
        from cptsel.pipeline.exports.jsonl import Jsonl
        from cptsel.pipeline.exports.registry import EXPORTS
        METHODS["shortest"] = Cover(summary="covers the shortest", source="A. Toy 2026")
        EXPORTS["texts"] = type("Texts", (Jsonl,), {"name": "texts", "summary": "a text a line", "suffix": ".txt"})()
        FORMATS["toy"] = FORMATS["jsonl"]
        from cptsel.cli.main import main
        for command in ("select", "export", "embed"):
            main([command, "--help"])
        docs = Path("docs")
        print(runpy.run_path(docs / "generate_methods.py")["page"]((docs / "methods.md").read_text()))
        main(["select", "run", "--out", "x", "--importance", "loss", "--method", "shortest"])
        main(["select", "run", "--out", "x", "--method", "short"])
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=repository
    )
    printed = " ".join(found.stdout.split())
    assert "shortest covers the shortest." in printed
    assert f"--to [{'|'.join(EXPORTS)}|texts]" in printed
    assert "texts is a text a line." in printed
    assert f"--format [{'|'.join(FORMATS)}|toy]" in printed
    assert "| `shortest` | coverage | covers the shortest | A. Toy 2026 |" in printed
    assert "--importance is read by importance; leave it out" in found.stderr
    assert "'short' is not one of 'uniform'" in found.stderr
    assert "'shortest'" in found.stderr


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    sound: bool = option(False, "Make a sound.", section="Sound")
    volume: int = option(
        3,
        "How loud.",
        section="Sound",
        metavar="N",
        least=0,
        most=11,
        read=ReadBy("with --sound", lambda config: config.sound),
    )


def test_an_option_is_one_declaration(tmp_path):
    command = click.Command("toy", params=config_parameters(ToyConfig), callback=lambda **values: values)
    with click.Context(command) as context:
        page = command.get_help(context)
    assert "--volume N  How loud.  [default: 3]" in page
    flags = command.main(["--sound", "--volume", "7"], standalone_mode=False)
    config = resolve(ToyConfig, None, flags)
    assert config == ToyConfig(sound=True, volume=7)
    check_values(config)
    check_read(config)
    assert to_yaml(config) == "sound: true\nvolume: 7\n"
    (tmp_path / "toy.yaml").write_text("volume: 12\n")
    from_file = resolve(ToyConfig, str(tmp_path / "toy.yaml"), {})
    with pytest.raises(UsageError, match="--volume 12: must be between 0 and 11"):
        check_values(from_file)
    with pytest.raises(UsageError, match="--volume is read with --sound; leave it out"):
        check_read(from_file)
