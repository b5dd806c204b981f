"""What instructions cost, in CPU seconds and MB.

Measured 2026-11-28 on 2 cores.
Written by ``python -m benchmarks.report`` from ``benchmarks/results/``.
"""

#: CPU of worker processes for one cycle that reads.
CYCLE = 0.0042
#: The same for a generation, in cycles.
GENERATION = 1.8
CLIENT = 0.0016
RABBITMQ = 0.0029
POSTGRESQL = 0.002
#: A worker process with next to nothing to do.
PROCESS_MEMORY = 119.0
