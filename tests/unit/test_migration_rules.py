"""No migration locks out the workers that go on meanwhile, or takes away what they need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmchatlinker.db import migrate as migrations
from llmchatlinker.db.schema import NEEDED
from tests.fixtures.made_up_migrations import BUSY, write
from tests.fixtures.migration_rules import problems


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where a made-up migration goes."""
    monkeypatch.setattr(migrations, "VERSIONS", [*migrations.VERSIONS, tmp_path])
    return tmp_path


def test_the_code_knows_the_newest_revision() -> None:
    assert migrations.revisions()[-1] == NEEDED


def test_revisions_are_numbers_in_their_order() -> None:
    known = migrations.revisions()

    assert known == sorted(known)
    assert all(re.fullmatch(r"\d{4}", revision) for revision in known)


def test_every_migration_runs_beside_workers() -> None:
    assert problems("0001", migrations.revisions()[-1]) == []


def test_what_may_be_done_online_is_accepted(folder: Path) -> None:
    write(folder)

    assert problems(NEEDED, BUSY) == []


@pytest.mark.parametrize(
    "upgrade",
    [
        'op.add_column("users", sa.Column("x", sa.Text(), nullable=False))',
        'op.add_column("users", sa.Column("x", sa.Uuid(), server_default=sa.text("gen_random_uuid()")))',
        'op.add_column("users", sa.Column("x", sa.Integer(), sa.Computed("id + 1", persisted=True)))',
        'op.drop_column("users", "profile")',
        'op.drop_table("records")',
        'op.alter_column("users", "profile", new_column_name="about")',
        'op.rename_table("users", "people")',
        'op.alter_column("users", "profile", type_=sa.String(100))',
        'op.alter_column("users", "profile", nullable=False)',
        'op.create_index("x", "users", ["profile"])',
        'op.execute("create unique index x on users (profile)")',
        'op.drop_index("ix_records_user_id_id")',
        'op.create_check_constraint("x", "users", "id > 0")',
        'op.create_foreign_key("x", "records", "users", ["user_id"], ["id"])',
        'op.create_unique_constraint("x", "users", ["profile"])',
        "op.execute(\"UPDATE users SET profile = ''\")",
        'op.execute("DELETE FROM records")',
        'op.execute("TRUNCATE records")',
        'op.execute("LOCK TABLE users")',
    ],
)
def test_what_stops_others_is_refused(folder: Path, upgrade: str) -> None:
    write(folder, upgrade)

    assert len(problems(NEEDED, BUSY)) >= 1


def test_what_nobody_needs_any_longer_may_go(folder: Path) -> None:
    write(folder, f'online.works_from("{NEEDED}")\nop.drop_column("users", "profile")')

    assert problems(NEEDED, BUSY) == []


def test_a_new_table_may_be_treated_as_one_likes(folder: Path) -> None:
    write(
        folder,
        'op.create_table("new", sa.Column("id", sa.Integer(), primary_key=True))\n'
        'op.create_index("ix_new", "new", ["id"])\nop.execute("UPDATE new SET id = 1")',
    )

    assert problems(NEEDED, BUSY) == []
