"""What instructions cost, in CPU seconds and MB.

Measured 2026-11-28 on 2 cores.
Written by ``python -m benchmarks.report`` from ``benchmarks/results/``.
"""

#: CPU of worker processes for one cycle that reads.
CYCLE = 0.0036
#: The same for a generation, in cycles.
GENERATION = 2.3
CLIENT = 0.0015
RABBITMQ = 0.0026
POSTGRESQL = 0.0017
#: A worker process with next to nothing to do.
PROCESS_MEMORY = 117.0
