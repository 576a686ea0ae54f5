__version__ = "0.1.0"

import sys

if sys.argv[:1] == ["-m"]:  # as a command, whose libraries are still to be loaded
    from .utils.commands import watch_memory
    watch_memory()
