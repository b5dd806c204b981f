"""Alembic's entry: runs on the connection that ``db/migrate.py`` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from llmchatlinker.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_type=True,
    compare_server_default=True,
)
context.run_migrations()
