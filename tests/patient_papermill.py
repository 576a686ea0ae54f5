"""papermill's command line as the docs run notebooks: its default engine, with `kernels.private_kernels`.

Tests run it in place of `python -m papermill`; test_kernels runs the plain command too. Kernels begin warm where WARM_KERNELS says from what."""
import os
from pathlib import Path
import sys

from jupyter_client.provisioning import local_provisioner
from papermill.cli import papermill
from papermill.engines import NBClientEngine, papermill_engines

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "nbs" / "_docs"))
from kernels import private_kernels  # noqa: E402
from warm import WarmProcess  # noqa: E402


class PatientEngine(NBClientEngine):
    "papermill's own, whose kernels are private and may take their time."
    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        with private_kernels() as more: return super().execute_managed_notebook(nb_man, kernel_name, **options | more)


def launch_warm(command, cwd=None, env=None, **how):
    "A kernel, as `jupyter_client` launches one; the command is `python -m ipykernel_launcher ...`."
    arguments = command[command.index("-m"):]
    watched = (os.environ if env is None else env) | {"JPY_PARENT_PID": str(os.getpid())}  # a kernel without a parent ends
    return WarmProcess(os.environ["WARM_KERNELS"], arguments, cwd or os.getcwd(), watched, [0, 1, 2], session=True)


if os.environ.get("WARM_KERNELS"): local_provisioner.launch_kernel = launch_warm
papermill_engines.register(None, PatientEngine)
if __name__ == "__main__": papermill(prog_name="papermill")
