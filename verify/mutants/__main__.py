"""Run a module with a mistake in it."""

import runpy
import sys

from verify.mutants import MUTANTS

MUTANTS[sys.argv[1]]()
runpy.run_module(sys.argv[2], run_name="__main__", alter_sys=True)
