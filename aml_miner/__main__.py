"""`python -m aml_miner` is `aml-miner`."""
import sys

from .cli.tree import main

if __name__ == "__main__": sys.exit(main())
