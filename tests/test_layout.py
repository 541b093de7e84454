"""The packages that are declared, the folders on disk, the links under src and the wheel are one and the same thing."""

import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest


@pytest.fixture(scope="module")
def setuptools_table(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def _folders_with_modules(repository):
    """Every folder of ours that holds Python modules, as its import name."""
    found = {"cptsel"}
    for top in ("cli", "pipeline", "schemas"):
        for file in (repository / top).rglob("*.py"):
            found.add(".".join(["cptsel", *file.parent.relative_to(repository).parts]))
    return found


def test_declared_packages_are_the_folders_on_disk(setuptools_table, repository):
    assert set(setuptools_table["packages"]) == _folders_with_modules(repository)
    for package, folder in setuptools_table["package-dir"].items():
        assert (repository / folder / "__init__.py").is_file(), f"{package}: {folder}/__init__.py is missing"
    assert set(setuptools_table["package-dir"]) == set(setuptools_table["packages"])


@pytest.mark.parametrize("name", ["cli", "pipeline", "schemas"])
def test_links_are_relative_and_resolve(name, repository):
    link = repository / "src" / "cptsel" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../../{name}"
    assert link.resolve() == (repository / name).resolve()


def test_imports_come_from_this_checkout(repository):
    import cptsel.pipeline.config

    assert (repository / "pipeline" / "config.py").samefile(cptsel.pipeline.config.__file__)


def test_every_public_name_has_a_home(repository):
    import cptsel

    for name in cptsel.__all__:
        assert getattr(cptsel, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = cptsel.nothing_of_that_name


def test_the_wheel_holds_all_modules_schemas_and_licences(repository, tmp_path):
    """Built from a copy without the links, as from an archive that lost them, and without a network."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("cli", "pipeline", "schemas"):
        shutil.copytree(repository / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "src" / "cptsel").mkdir(parents=True)
    for name in ("__init__.py", "__main__.py", "py.typed"):
        shutil.copy(repository / "src" / "cptsel" / name, copy / "src" / "cptsel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(repository / name, copy)
    command = [
        sys.executable,
        "-c",
        "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))",
        tmp_path,
    ]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {"cptsel/__init__.py", "cptsel/__main__.py", "cptsel/py.typed"}
    for top in ("cli", "pipeline", "schemas"):
        for file in (repository / top).rglob("*"):
            if file.suffix in {".py", ".json", ".md"}:
                expected.add("cptsel/" + file.relative_to(repository).as_posix())
    assert expected <= names
    assert {name.split("/")[0] for name in names} == {"cptsel", wheel.name.split("-")[0] + "-0.1.0.dist-info"}
    assert {name.rsplit("/", 1)[-1] for name in names} >= {"LICENSE", "NOTICE"}
