"""nbdev_test, whose shell compiles each exported cell as the lines of the module that it becomes: coverage.py counts them there, and tracebacks name them."""
import ast
import os
from pathlib import Path
import re
import sys

from IPython.core.compilerop import CachingCompiler
from nbdev import test

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "nbs" / "_docs"))
import execute  # noqa: E402

MARKER = re.compile(r"^# %% \S+\.ipynb #\w+$")  # nbdev's, above each exported cell


def module_of(notebook):
    "The module that a notebook exports; it is not there for one that exports none."
    path = ROOT / "aml_miner" / notebook.relative_to(ROOT / "nbs").with_suffix(".py")
    return path.with_name("__init__.py") if path.stem == "index" else path


def exported_cells(module):
    "Text of each cell of a module -> its first line there, from 1."
    lines = module.read_text(encoding="utf-8").splitlines() if module.is_file() else []
    markers = [i for i, line in enumerate(lines) if MARKER.match(line)]
    return {"\n".join(lines[a + 1:b]).strip(): a + 2 for a, b in zip(markers, [*markers[1:], len(lines)])}


class ModuleLines(CachingCompiler):
    "Compiles the cells of one notebook. One whose text is not word for word in the module, such as that of its imports, stays a cell."
    def __init__(self, notebook):
        super().__init__()
        self.module = module_of(notebook)
        self.first_lines = exported_cells(self.module)

    def cache(self, transformed_code, number=0, raw_code=None):
        "The name of the file that the code is of."
        return str(self.module) if transformed_code.strip() in self.first_lines else super().cache(transformed_code, number, raw_code)

    def ast_parse(self, source, filename="<unknown>", symbol="exec"):
        tree = super().ast_parse(source, filename, symbol)
        return ast.increment_lineno(tree, self.first_lines[source.strip()] - 1) if filename == str(self.module) else tree


class CountedShell(test.CaptureShell):
    "nbdev's own, but for what compiles; what a notebook shows is kept for the site, which then need not run it."
    def __init__(self, path):
        super().__init__(path)
        self.compile, self.notebook = ModuleLines(path), path
        execute.show_figures(self)

    def run_all(self, nb, **how):
        "Where a cell fails nothing is kept."
        super().run_all(nb, **how)
        execute.keep_outputs(nb.cells, execute.cache_file(execute.read_notebook(self.notebook)))


if __name__ == "__main__":
    os.environ |= execute.ENVIRONMENT
    test.CaptureShell = CountedShell
    sys.exit(test.nbdev_test())
