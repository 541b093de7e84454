"""Make the environments of tests that need packages beside the project's own, from the lists that name these.

    .venv/bin/python tests/environments.py

The list trainers/NAME.txt here becomes the folder .trainers/NAME of the repository, engines/NAME.txt the folder
.engines/NAME. Each sees the packages of the environment that makes it, torch and cptsel among them, behind its own. A
list that can't be installed is named and left out; the tests that need it skip.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).parent


def environment(kind: str, name: str) -> Path:
    """Folder of the environment of a list."""
    return HERE.parent / f".{kind}" / name


def make(requirements: Path) -> bool:
    """Whether the environment of a list is there; made anew where the list has changed."""
    folder = environment(requirements.parent.name, requirements.stem)
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_bytes() == requirements.read_bytes():
        return True
    venv.create(folder, clear=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    # As a folder of packages, so that links in it to other folders, such as to the project itself, count.
    (packages / "project.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--target", str(packages)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "-r", str(requirements)], capture_output=True, text=True
    )
    if done.returncode:
        print(f"{requirements.stem}: not installed; {done.stderr.strip().splitlines()[-1][:200]}")
        return False
    mark.write_bytes(requirements.read_bytes())
    print(f"{requirements.stem}: installed")
    return True


if __name__ == "__main__":
    for kind in ("engines", "trainers"):
        for path in sorted((HERE / kind).glob("*.txt")):
            make(path)
