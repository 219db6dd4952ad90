"""How the tests run the notebooks: at a small size, and only where both frameworks are installed."""

import importlib.util
import os

os.environ.setdefault("TUTORIAL_SEEDS", "1")
collect_ignore_glob = ["*.py"]  # the notebooks' other halves
if not all(importlib.util.find_spec(name) for name in ("snntorch", "spikingjelly", "sklearn")):
    collect_ignore_glob += ["*.ipynb"]
