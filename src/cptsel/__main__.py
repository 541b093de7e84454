"""``python -m cptsel`` is ``cptsel``."""

import sys

from cptsel.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
