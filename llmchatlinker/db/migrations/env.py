"""Alembic's entry: each migration in a transaction of its own, on ``db/migrate.py``'s connection."""

from __future__ import annotations

from alembic import context

from llmchatlinker.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    dialect_name="postgresql",
    target_metadata=Base.metadata,
    compare_type=True,
    compare_server_default=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
