"""``python -m snn_ext`` is ``snn-ext``."""

import sys

from .cli import main

if __name__ == "__main__":  # not where a test collects it
    sys.exit(main())
