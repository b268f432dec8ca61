"""``python -m crosscontext`` is the command ``crosscontext``."""

import sys

from crosscontext.cli import main

if __name__ == "__main__":
    sys.exit(main())
