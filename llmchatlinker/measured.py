"""What instructions cost, in CPU seconds and MB.

Measured 2026-11-29 on 2 cores.
Written by ``python -m benchmarks.report`` from ``benchmarks/results/``.
"""

#: CPU of worker processes for one cycle that reads.
CYCLE = 0.0031
#: The same for a generation, in cycles.
GENERATION = 1.7
CLIENT = 0.001
RABBITMQ = 0.0025
POSTGRESQL = 0.0014
#: A worker process with next to nothing to do.
PROCESS_MEMORY = 119.0
