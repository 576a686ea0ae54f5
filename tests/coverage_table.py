"""What the last `make coverage` reached of the package, by room: statements, missing, per cent. With --lines also which lines were missed.

Counted are pytest and nbdev_test together, in their own processes: not what commands and notebooks reach in processes of theirs, whose start would take longer
by half, nor tests/kills and tests/fuzz.
A cell that is exported counts as the lines of its module, see counted_notebooks.py."""
import argparse
from collections import defaultdict
from pathlib import Path
import sys
import tempfile

from coverage import Coverage

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "coverage"  # one folder for each step that is measured
STEPS = ("tests", "notebooks")


def modules():
    "Files of the package with statements to run, nbdev's index apart."
    return [p for p in sorted((ROOT / "aml_miner").rglob("*.py")) if p.name != "_modidx.py"]


def combined(data_file, folders):
    "The lines that all processes reached whose counts are in these folders."
    coverage = Coverage(data_file=str(data_file), config_file=str(ROOT / ".coveragerc"), messages=False)
    coverage.combine([str(process) for folder in folders for process in folder.glob("lines.*")], strict=True, keep=True)
    return coverage


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", action="store_true", help="name the lines that were missed")
    args = parser.parse_args(argv)
    steps = [step for step in STEPS if (FOLDER / step).is_dir()]
    if not steps: sys.exit("no coverage was measured yet: `make coverage` does")
    rooms = defaultdict(lambda: [0, 0])
    with tempfile.TemporaryDirectory() as folder:
        coverage = combined(Path(folder) / "all", [FOLDER / step for step in steps])
        for module in modules():
            _, statements, _, missing, lines = coverage.analysis2(str(module))
            room = module.relative_to(ROOT / "aml_miner").parts[0].removesuffix(".py")
            for name in (room, "all"): rooms[name] = [rooms[name][0] + len(statements), rooms[name][1] + len(missing)]
            if args.lines and missing: print(f"{module.relative_to(ROOT)}: {lines}")
    print(f"{'room':<14} statements  missing  covered   by {' and '.join(steps)}")
    for room in [*sorted(rooms.keys() - {"all"}), "all"]:
        statements, missing = rooms[room]
        print(f"{room:<14} {statements:10} {missing:8} {(1 - missing / statements if statements else 1):8.1%}")
    return 0


if __name__ == "__main__": sys.exit(main())
