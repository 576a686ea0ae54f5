"""How notebooks are run here: kernels are reached by files of a folder of their own in place of ports, and waited for however busy the machine is."""
from contextlib import contextmanager
import os
import tempfile

from traitlets.config import Config

PATIENCE = 3600  # seconds until a kernel that does not answer counts as dead: a net, no measure
LONGEST = 100  # characters of a socket's path; systems take 103 to 107


@contextmanager
def private_kernels():
    "Options for `papermill.execute_notebook`: transport and patience. Where the path of temporary folders is too long for a socket, kernels keep to ports."
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        sockets = os.path.join(folder, "k")  # -1 to -5
        private = {"transport": "ipc", "ip": sockets} if len(os.fsencode(sockets)) + 2 <= LONGEST else {}
        yield {"config": Config({"KernelManager": private, "AsyncKernelManager": private}), "start_timeout": PATIENCE, "iopub_timeout": PATIENCE}
