"""How XLA compiles while the tests run.

Most of the tests' time is compiling. Without LLVM's optimizations, with the older emitter of fused loops and with each
program as one module, an update of a small model compiles in 2.4 CPU seconds, with LLVM's optimizations left out alone
in 9.2; results differ at most by rounding.
"""

import jaxlib

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if jaxlib.version.__version_info__ < (0, 12):  # which has no older emitter, and ends a process that asks for it
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
