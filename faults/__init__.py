"""The fault suite: what docs/reliability.md promises, while processes are killed and servers go away.

``make faults``, or ``python -m faults [SCENARIO …] [--rounds N] [--seed S]``. A scenario has a RabbitMQ
and a PostgreSQL to itself, worker processes with a supervisor that starts the dead ones anew, a client
process that submits, and a provider that counts its calls. In each round the clients submit, something
is broken, and once the system is quiet again ``checker.py`` compares what everybody remembers.

Nothing in the product knows of it: processes are killed from outside, or by ``failpoints.py``, which
only these workers load.
"""
