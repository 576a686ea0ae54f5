#!/usr/bin/env python
"""Train again from what a report says, and compare bytes: `aml-miner verify`, whose options these are."""
import sys

from aml_miner.cli.tree import main

if __name__ == "__main__": sys.exit(main(["verify", *sys.argv[1:]]))
