"""How XLA compiles while the tests run.

Most of the tests' time is compiling. Without LLVM's optimizations the programs of a small model's step compile in half
of the time (34 -> 15 CPU seconds for sample, reference and update); results differ at most by rounding.
"""

FLAGS = "--xla_backend_optimization_level=0"
