"""``python -m cptsel`` is ``cptsel``."""

from cptsel.cli.main import run

if __name__ == "__main__":
    run()
