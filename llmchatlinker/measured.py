"""What instructions cost, in CPU seconds and MB.

Measured 2026-11-28 on 2 cores.
Written by ``python -m benchmarks.report`` from ``benchmarks/results/``.
"""

#: CPU of worker processes for one cycle that reads.
CYCLE = 0.0051
#: The same for a generation, in cycles.
GENERATION = 1.7
CLIENT = 0.0016
RABBITMQ = 0.0028
POSTGRESQL = 0.0019
#: A worker process with next to nothing to do.
PROCESS_MEMORY = 117.0
