"""How notebooks are run here: kernels are reached by files of a folder of their own in place of ports, and waited for however busy the machine is."""
from contextlib import contextmanager
import os
import tempfile

from traitlets.config import Config

PATIENCE = 3600  # seconds until a kernel that does not answer counts as dead: a net, no measure
LONGEST = 100  # characters of a socket's path; systems take 103 to 107


@contextmanager
def private_kernels():
    "Options for `papermill.execute_notebook`: transport and patience. Where the temporary folder's path is too long for a socket, kernels keep to ports."
    with tempfile.TemporaryDirectory(prefix="k") as runtime:
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        fits = len(os.path.join(runtime, "kernel-01234567-89ab-cdef-0123-456789abcdef-ipc-5")) <= LONGEST
        transport = {"transport": "ipc"} if fits else {}
        yield {"config": Config({"KernelManager": transport, "AsyncKernelManager": transport}), "start_timeout": PATIENCE, "iopub_timeout": PATIENCE}
