"""Read by every kernel of the environment that `make env` makes: one warning is left out.

Kernels listen on this machine alone, and say so in each run that they are not encrypted."""
import logging

logging.getLogger("IPKernelApp").addFilter(lambda record: "over TCP without encryption" not in record.getMessage())
