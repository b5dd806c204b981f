"""A user's calls by time: what the limits per user count"""

from __future__ import annotations

import sqlalchemy as sa

from llmchatlinker.db.migrations import online

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    online.create_index(
        "ix_attempts_user_id_started_at",
        "attempts",
        ["user_id", "started_at"],
        postgresql_where=sa.text("user_id IS NOT NULL"),
    )
    # The new one serves all that this one did.
    online.drop_index("ix_attempts_user_id")
