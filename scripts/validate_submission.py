#!/usr/bin/env python
"""Check scores before they are sent: `aml-miner validate`, whose options these are."""
import sys

from aml_miner.cli.tree import main

if __name__ == "__main__": sys.exit(main(["validate", *sys.argv[1:]]))
