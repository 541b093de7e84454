"""The command line itself: parsing, what goes to Beam, YAML, errors, exit codes, progress and summaries."""

import json
import logging
import subprocess
import sys
import types
from dataclasses import replace

import pytest
from rich.cells import cell_len

from cptsel.cli import _output
from cptsel.cli.main import COMMANDS, main
from cptsel.pipeline.config import resolve
from cptsel.pipeline.errors import BadInputError, PartialError, UsageError, VerificationError
from cptsel.pipeline.planning.config import PlanConfig
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.summary import Summary, Table

SUMMARY = Summary(
    command="order",
    out="somewhere/[red]",
    status="done",
    totals={"samples": 12345, "share": 0.25},
    tables=[Table("Groups", ["group", "tokens"], [["[bold]de", 1000], ["fr", None]])],
    warnings=["one shard is empty"],
)


@pytest.fixture
def stub(monkeypatch):
    """Put a function in the place of a pass; what it was called with is in ``stub.calls``."""
    calls = []

    def install(name, behaviour=None):
        def function(config, progress=None):
            calls.append(config)
            if isinstance(behaviour, BaseException):
                raise behaviour
            return SUMMARY if behaviour is None else behaviour

        module = types.ModuleType(f"cptsel.pipeline.{name}")
        setattr(module, name, function)
        monkeypatch.setitem(sys.modules, f"cptsel.pipeline.{name}", module)

    install.calls = calls
    return install


@pytest.fixture(autouse=True)
def _restore_logging():
    root, ours = logging.getLogger(), logging.getLogger("cptsel")
    handlers, filters, levels = root.handlers[:], root.filters[:], (root.level, ours.level)
    yield
    root.handlers[:], root.filters[:] = handlers, filters
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_help_imports_neither_torch_nor_beam():
    code = (
        "import sys; from cptsel.cli.main import main; code = main(['--help']);"
        "print(sorted({'torch', 'apache_beam', 'yaml', 'numpy', 'pyarrow', 'rich'} & set(sys.modules)), code)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("\n[] 0\n")
    assert all(name in run.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_imports_neither_torch_nor_beam(name):
    code = (
        f"import sys; from cptsel.cli.main import main; main(['{name}', '--help']);"
        "print(sorted({'torch', 'apache_beam', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("\n[]\n")


def test_python_m_cptsel_is_cptsel():
    run = subprocess.run([sys.executable, "-m", "cptsel", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("cptsel ")


def test_flags_reach_the_config(stub):
    stub("embed")
    argv = "embed a.jsonl b.jsonl --model m --out run --group-by lang --group-by source --storage int8 --overwrite"
    assert main(argv.split()) == 0
    (config,) = stub.calls
    assert config.inputs == ("a.jsonl", "b.jsonl")
    assert config.group_by == ("lang", "source")
    assert (config.storage, config.overwrite, config.dry_run) == ("int8", True, False)
    assert config.sketch_dim == 1024  # the default, as in Python


def test_what_follows_the_first_dashes_goes_to_beam(stub):
    stub("select")
    assert main(["select", "run", "--out", "x", "--", "--runner=SparkRunner", "--", "--debug"]) == 0
    assert stub.calls[0].beam_args == ("--runner=SparkRunner", "--", "--debug")
    assert stub.calls[0].runs == ("run",)


@pytest.mark.parametrize("argv", [["order", "r", "--out", "x"], ["inspect", "r"], ["locate", "r"]])
def test_commands_without_beam_refuse_its_options(stub, capsys, argv):
    stub(argv[0])
    assert main([*argv, "--", "--runner=SparkRunner"]) == 2
    assert not stub.calls
    assert (
        f"cptsel {argv[0]} runs without Beam: leave out what follows -- (--runner=SparkRunner)"
        in capsys.readouterr().err
    )


def test_a_flag_wins_over_yaml_and_yaml_over_the_default(stub, tmp_path):
    stub("select")
    file = tmp_path / "select.yaml"
    file.write_text("runs: [one, two]\nout: from-yaml\nbudget: 10%\nmax-repeats: 2\noverwrite: true\n")
    assert main(["select", "--config", str(file), "--budget", "500 samples"]) == 0
    (config,) = stub.calls
    assert (config.runs, config.out, config.budget) == (("one", "two"), "from-yaml", "500 samples")
    assert (config.max_repeats, config.overwrite, config.neighbours) == (2, True, 128)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("select run --out x --budget 10% --budget 20%", "--budget was given twice; give it once"),
        ("select run --out x --group-by a --group-by b", "--group-by was given twice; give it once"),
        ("select run --out x --method craig --method full", "--method was given twice; give it once"),
        ("embed c --model m --out x --exclude a --exclude b --exclude c", "--exclude was given 3 times; give it once"),
        ("order r --out x --out y", "--out was given twice; give it once"),
        ("verify r --workers 1 --workers 1", "--workers was given twice; give it once"),
        ("compare r s --phase 0 --phase 1", "--phase was given twice; give it once"),
        ("export r --out x --root a --root=b", "--root was given twice; give it once"),
        ("order r --config a.yaml --config b.yaml", "--config was given twice; give it once"),
    ],
)
def test_an_option_of_one_value_is_given_once(stub, capsys, argv, sentence):
    stub(argv.split()[0])
    assert main(argv.split()) == 2
    assert not stub.calls
    assert capsys.readouterr().err == f"cptsel: error: {sentence}\n"


@pytest.mark.parametrize("again", ["budget: 20%", "'budget': 20%"])
def test_a_key_stands_in_the_file_once(stub, tmp_path, capsys, again):
    stub("select")
    file = tmp_path / "select.yaml"
    file.write_text(f"runs: [one]\nout: x\nbudget: 10%\n{again}\n")
    assert main(["select", "--config", str(file)]) == 2
    assert capsys.readouterr().err == f"cptsel: error: --config {file}: budget was given twice; give it once\n"
    file.write_text("runs: [one]\nout: x\nmax-repeats: 2\nmax_repeats: 3\n")
    assert main(["select", "--config", str(file)]) == 2
    assert "max_repeats was given twice" in capsys.readouterr().err
    assert not stub.calls


def test_a_file_may_merge_keys(tmp_path):
    file = tmp_path / "select.yaml"
    file.write_text("runs: [one]\nout: x\nseed: 1\n<<: {budget: 7%, seed: 2}\n")
    config = resolve(SelectConfig, str(file), {})
    assert (config.budget, config.seed) == ("7%", 1)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["select", "run", "--out", ""], "--out is empty; give it a value"),
        (["select", "", "--out", "x"], "RUN is empty; give it a value"),
        (["select", "run", "", "--out", "x"], "RUN is empty; give it a value"),
        (["select", "run", "--out", "x", "--exclude", ""], "--exclude is empty; give it a value, or leave it out"),
        (["select", "run", "--out", "x", "--history", "a", "--history", ""], "--history is empty; give it a value, or"),
        (["verify", ""], "DIRECTORY is empty; give it a value"),
        (["inspect", ""], "DIR is empty; give it a value"),
    ],
)
def test_an_empty_text_is_no_path(tmp_path, monkeypatch, capsys, command, sentence):
    """As one it would be the current directory, and an empty --exclude would leave out nothing."""
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert capsys.readouterr().err.startswith(f"cptsel: error: {sentence}")
    assert list(tmp_path.iterdir()) == []


def test_whole_numbers_in_the_file_are_texts_where_texts_are_wanted(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("trainings: 1\nrise: 2\ntokens: [30, 5M, 20_000]\n")
    planned = resolve(PlanConfig, str(file), {})
    assert planned == PlanConfig(trainings="1", rise=2.0, tokens=("30", "5M", "20000"))
    file.write_text("trainings: t.csv\ntokens: 20000\n")
    assert resolve(PlanConfig, str(file), {}).tokens == ("20000",)
    counts = dict.fromkeys(("budget", "replay_tokens", "group_floor", "group_cap", "phase_budget"), "500")
    file.write_text("runs: 7\nout: 8\n" + "".join(f"{name}: 500\n" for name in counts))
    assert resolve(SelectConfig, str(file), {}) == SelectConfig(runs=("7",), out="8", **counts)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("budget: 0.05", 'budget: 0.05 is not text; a share is written "5%"'),
        ("group-floor: 0.01", 'group_floor: 0.01 is not text; a share is written "5%"'),
        ("method:", "method has no value; give it text, or leave it out"),
        ("exclude: [a, b]", "exclude: [a, b] is not text; it takes one value"),
        ("phases: two", "phases: two is not a whole number"),
        ("phases: '2'", "phases: '2' is not a whole number"),
        ("seed: 1.5", "seed: 1.5 is not a whole number"),
        ("tolerance: small", "tolerance: small is not a number"),
        ("overwrite: 1", "overwrite: 1 is not true or false"),
        ("new: true", "new: true is not text"),
        ("history: [a, true]", "history: [a, true] is not a list of texts\n"),
        ("history: [a, 1.50]", "history: [a, 1.5] is not a list of texts; write it in quotes"),
        ("group-by: 1.50", "group_by: 1.5 is not text; write it in quotes"),
        ("buget: 5%", "unknown option buget; did you mean budget?"),
        ("group-bye: x", "unknown option group-bye; did you mean group_by?"),
        ("learning-rate: 1", "unknown option learning-rate; see cptsel select --help for those there are"),
        ("- 5%", "must be lines of an option and its value, such as 'seed: 1'"),
        ("seed: 2026-99-99", "can't be read as YAML (month must be in 1..12)"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_in_plain_words(stub, tmp_path, capsys, line, sentence):
    stub("select")
    file = tmp_path / "select.yaml"
    file.write_text(line + "\n")
    assert main(["select", "run", "--out", "x", "--config", str(file)]) == 2
    assert not stub.calls
    err = capsys.readouterr().err
    assert err.startswith(f"cptsel: error: --config {file}")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError, 2), (BadInputError, 3), (VerificationError, 4), (PartialError, 5)],
)
def test_errors_are_one_line_and_an_exit_code(stub, capsys, error, code):
    stub("verify", error("shard 3,\nrow 7: is wrong"))
    assert main(["verify", "replay"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "cptsel: error: shard 3, row 7: is wrong\n")


def test_an_internal_error_is_one_line_that_says_how_to_see_more(stub, capsys):
    stub("verify", RuntimeError("Traceback (most recent call last):\n  File ...\nKeyError: 'phase'\n"))
    assert main(["verify", "replay"]) == 1
    assert capsys.readouterr().err == (
        "cptsel: error: internal error (RuntimeError: KeyError: 'phase'): rerun with --debug for the traceback\n"
    )


@pytest.mark.parametrize("argv", [["--debug", "verify", "replay"], ["verify", "replay", "--debug"]])
def test_debug_shows_the_traceback(stub, capsys, argv):
    stub("verify", KeyError("phase"))
    assert main(argv) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interrupt_exits_with_130(stub, capsys):
    stub("verify", KeyboardInterrupt())
    assert main(["verify", "replay"]) == 130
    assert capsys.readouterr().err.strip() == "cptsel: interrupted"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["embed"], "missing: GLOB, --model, --out"),
        (["select", "run"], "missing: --out"),
        (["order", "a", "b"], "unexpected extra argument (b); see cptsel order --help"),
        (["select", "run", "--method", "best"], "'best' is not one of 'uniform', 'full', "),
        (["embed", "x", "--sketch-dim", "many"], "'many' is not a valid integer; see cptsel embed --help"),
        (
            ["chose"],
            "no command 'chose'; commands: embed, lookahead, select, order, verify, compare, report, inspect, ",
        ),
        (["explain"], "missing: REPLAY"),
        (["locate", "r"], "missing: --position"),
        (
            ["embed", "--config", "absent.yaml"],
            "--config absent.yaml: can't be read (no such file or directory); name a YAML file",
        ),
        (["embed", "--config", "/"], "--config /: can't be read (is a directory); name a YAML file"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(capsys, argv, sentence):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
    assert err.startswith("cptsel: error: ")


def test_no_arguments_show_the_help(capsys):
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_the_summary_is_printed_whole_and_never_taken_for_markup(stub, capsys):
    stub("order")
    assert main(["order", "replay", "--out", "x"]) == 0
    out, err = capsys.readouterr()
    for piece in ("cptsel order: done", "12,345", "0.25", "somewhere/[red]", "Groups", "[bold]de", "1,000"):
        assert piece in out
    assert "one shard is empty" in err


@pytest.mark.parametrize(
    ("value", "shown"),
    [(4864, "4,864"), (4144.2, "4,144"), (9999.7, "10,000"), (999.96, "1,000"), (-5925.4, "-5,925"),
     (12345.6, "12,346"), (0.12345, "0.1235"), (1e-7, "1e-07"), (999.4, "999.4")],
)  # fmt: skip
def test_thousands_are_apart_in_all_numbers(value, shown):
    assert str(_output._cell(value)) == shown


def test_json_puts_the_summary_and_nothing_else_on_stdout(stub, capsys):
    stub("order")
    assert main(["order", "replay", "--out", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == SUMMARY.as_dict()


def test_long_paths_are_not_cut_where_stdout_is_no_terminal(stub, capsys):
    path = "/".join(["directory"] * 30)
    stub("order", replace(SUMMARY, tables=[Table("t", ["path"], [[path]])], out=path))
    assert main(["order", "replay", "--out", "x"]) == 0
    assert capsys.readouterr().out.count("directory") == 60


@pytest.mark.parametrize("text", ["two words " * 30, "字" * 300], ids=["words", "no spaces"])
def test_long_texts_are_folded_where_stdout_is_no_terminal(stub, capsys, text):
    path = "/".join(["directory"] * 30)
    stub("order", replace(SUMMARY, tables=[Table("t", ["what", "value"], [["text", text], ["n", 1]])]))
    assert main(["order", "replay", "--out", "x"]) == 0
    out = capsys.readouterr().out
    assert max(map(cell_len, out.splitlines())) < 120
    assert "".join(out.split()).count("".join(text.split())) == 1
    stub("order", replace(SUMMARY, tables=[Table("t", ["value"], [[text], [path]])]))
    assert main(["order", "replay", "--out", "x"]) == 0
    assert path in capsys.readouterr().out


def test_progress_without_a_terminal_is_a_line_now_and_then(caplog):
    caplog.set_level(logging.INFO, logger="cptsel")
    seconds = iter([0.0, 10.0, 31.0, 32.0, 33.0])
    report = _output.log_progress(clock=lambda: next(seconds))
    for done in (1, 2, 3, 4, 4):
        report(done, 4, "blocks")
    assert [record.message for record in caplog.records] == ["blocks: 1 of 4", "blocks: 3 of 4", "blocks: 4 of 4"]


def test_import_noise_is_dropped_and_warnings_are_not(capsys):
    with _output.progress():
        logging.warning("apitools not found, whatever follows")
        logging.warning("a real warning")
    err = capsys.readouterr().err
    assert "apitools" not in err
    assert "a real warning" in err


def test_columns_are_as_wide_as_their_paths_and_not_as_their_escapes():
    path = "/corpus/" + "x" * 150
    assert _output._width([path, "short"]) == len(path)
    assert _output._width(["word\n" * 100, "\t".join("abc" * 100), None, 7]) == _output._PLAIN_CELL
