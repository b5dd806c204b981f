"""A user's calls under way: what the limit per user counts"""

from __future__ import annotations

import sqlalchemy as sa

from llmchatlinker.db.migrations import online

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    online.create_index(
        "ix_attempts_started_user_id",
        "attempts",
        ["user_id"],
        postgresql_where=sa.text("status = 'started'"),
    )
