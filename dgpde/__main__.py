"""`python -m dgpde` is the command `dgpde`."""

from __future__ import annotations

import sys

from dgpde.cli import main

if __name__ == "__main__":
    sys.exit(main())
