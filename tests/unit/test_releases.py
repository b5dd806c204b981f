"""Which release the upgrade is tested from."""

from __future__ import annotations

import pytest

from tests.fixtures.releases import assert_none_before, newest_first

CHANGELOG = "# Changelog\n\n## [0.2.0] - {}\n\n- New.\n\n## [0.1.0] - {}\n"


def test_releases_are_ordered_by_number_and_what_was_tried_before_one_is_none() -> None:
    tags = ["v0.2.0-rc1", "v0.10.0", "v0.2.0", "v0.9.1", "vendor", "v1.0.0rc2"]

    assert newest_first(tags) == ["v0.10.0", "v0.9.1", "v0.2.0"]


def test_a_release_without_its_tag_fails_and_says_what_to_do() -> None:
    with pytest.raises(
        AssertionError, match=r"0\.1\.0, and git has no tag of it: `git fetch --tags`"
    ):
        assert_none_before(CHANGELOG.format("Unreleased", "2026-12-01"), "0.2.0")


def test_before_and_at_the_first_release_there_is_none() -> None:
    assert_none_before("## [0.1.0] - Unreleased\n", "0.1.0")
    assert_none_before("## [0.1.0] - 2026-12-01\n", "0.1.0")
