"""Nothing that a corpus, a manifest or a file name says reaches the terminal as more than text."""

import json
import shutil

import pytest

from cptsel.cli._visible import visible, visible_json
from cptsel.cli.main import main

EVIL = "\x1b[31m[red]\u202e\x9b2J"
SHOWN = "\\x1b[31m[red]\\u202e\\x9b2J"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Ünïcödé, 短い, 🎉, می‌خواهم", "plain, Ünïcödé, 短い, 🎉, می‌خواهم"),
        (EVIL, SHOWN),
        ("a\nb\tc\r\x00\x7f", "a\\nb\\tc\\r\\x00\\x7f"),
        ("\u2028\u2066\ufeff\udc80", "\\u2028\\u2066\\ufeff\\udc80"),
    ],
)
def test_what_a_terminal_acts_on_is_escaped(text, shown):
    assert visible(text) == shown
    assert json.loads(visible_json(json.dumps({"x": text}, ensure_ascii=False))) == {"x": text}
    assert set(visible_json(json.dumps(text, ensure_ascii=False))).isdisjoint("\x1b\x7f\x9b\u202e\udc80")


def test_lines_may_stay_lines():
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert visible_json('{\n  "a": 1\n}') == '{\n  "a": 1\n}'


@pytest.fixture(scope="module")
def chain(tmp_path_factory, tiny_lm):
    """A corpus whose file, groups and ids all hold escape sequences, and what each command makes of it."""
    base = tmp_path_factory.mktemp("evil")
    corpus = base / "corpus"
    corpus.mkdir()
    for number in range(2):
        rows = [
            {"id": f"{EVIL}{row}", "text": f"Weights and measures, number {row}. " * 4, "lang": f"{EVIL}{row % 2}"}
            for row in range(12)
        ]
        (corpus / f"{EVIL}{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    commands = {
        "embed": ["embed", f"{corpus}/*", "--model", str(tiny_lm), "--group-by", "lang", "--max-bad-fraction", "0.5"],
        "select": ["select", f"{base}/embed", "--method", "uniform", "--budget", "50%", "--group-by", "lang"],
        "order": ["order", f"{base}/select"],
        "export": ["export", f"{base}/order"],
    }
    return base, {name: [*argv, "--out", f"{base}/{name}", "--overwrite"] for name, argv in commands.items()}


def printed(capsys, argv, code=0):
    assert main(argv) == code
    out, err = capsys.readouterr()
    hidden = {character for character in out + err if visible(character, keep="\n") != character}
    assert not hidden, (argv, hidden)
    return out + err


def test_no_command_prints_an_escape_sequence(chain, capsys):
    base, commands = chain
    for argv in commands.values():
        printed(capsys, argv)
    for name in commands:
        assert SHOWN in printed(capsys, ["inspect", f"{base}/{name}"]) or name == "export"
        json.loads(printed(capsys, ["inspect", f"{base}/{name}", "--json"]))
    printed(capsys, ["verify", f"{base}/order", "--sources"])
    for more in ([], ["--json"]):
        assert "number" in printed(
            capsys, ["explain", f"{base}/order", "--text", "number", "--run", f"{base}/embed", *more]
        )
        assert "number" in printed(capsys, ["locate", f"{base}/order", "--position", "1", *more])
    assert SHOWN in printed(capsys, ["explain", f"{base}/order", EVIL], 2)
    assert SHOWN in printed(capsys, ["compare", f"{base}/select", f"{base}/order"])
    assert SHOWN in printed(capsys, [*commands["select"], "--dry-run"])
    # errors and warnings
    assert SHOWN in printed(capsys, ["embed", f"{base}/{EVIL}", "--model", "x", "--out", f"{base}/none"], 2)
    assert SHOWN in printed(capsys, ["select", f"{base}/{EVIL}", "--out", f"{base}/none", "--debug"], 2)
    assert SHOWN in printed(capsys, ["inspect", f"{base}/embed", EVIL], 2)
    shutil.rmtree(base / "corpus")
    assert SHOWN in printed(capsys, ["verify", f"{base}/order", "--sources"], 4)
    assert SHOWN in printed(capsys, commands["export"], 3)
