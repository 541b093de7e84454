"""Make the environments in which trainers' own libraries read exports: a folder .trainers/NAME for each list here.

    .venv/bin/python tests/trainers/environments.py

Each sees the packages of the environment that makes it, torch among them, behind its own. A list that can't be
installed is named and left out; tests/test_trainers.py skips what reads by it.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

LISTS = Path(__file__).parent
FOLDER = LISTS.parents[1] / ".trainers"


def make(requirements: Path) -> bool:
    """Whether the environment of a list is there; made anew where the list has changed."""
    folder = FOLDER / requirements.stem
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_bytes() == requirements.read_bytes():
        return True
    venv.create(folder, clear=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
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
    for path in sorted(LISTS.glob("*.txt")):
        make(path)
