#!/usr/bin/env python
"""Train scorer, ranker and cluster scorer: `aml-miner train all`, whose options these are."""
import sys

from aml_miner.cli.tree import main

if __name__ == "__main__": sys.exit(main(["train", "all", *sys.argv[1:]]))
