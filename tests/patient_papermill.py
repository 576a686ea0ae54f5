"""papermill's command line as the docs run notebooks: its default engine, with `kernels.private_kernels`.

Tests run it in place of `python -m papermill`; test_kernels runs the plain command too."""
from pathlib import Path
import sys

from papermill.cli import papermill
from papermill.engines import NBClientEngine, papermill_engines

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "nbs" / "_docs"))
from kernels import private_kernels  # noqa: E402


class PatientEngine(NBClientEngine):
    "papermill's own, whose kernels are private and may take their time."
    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        with private_kernels() as more: return super().execute_managed_notebook(nb_man, kernel_name, **options | more)


papermill_engines.register(None, PatientEngine)
if __name__ == "__main__": papermill(prog_name="papermill")
