"""The fixtures' modules. Servers start at the first test that needs one, so unit tests start none.

``LLMCHATLINKER_TEST_DATABASE_URL`` (a superuser's) and ``LLMCHATLINKER_TEST_BROKER_URL`` (with
``LLMCHATLINKER_TEST_BROKER_API_URL``) name servers to use instead of private ones. A server that
can't be had skips its tests, except where ``CI=true``: there it fails them.
"""

from __future__ import annotations

import signal

from hypothesis import settings as hypothesis_settings

pytest_plugins = [
    "tests.fixtures.distribution",
    "tests.fixtures.configuration",
    "tests.fixtures.servers",
    "tests.fixtures.databases",
    "tests.fixtures.brokers",
    "tests.fixtures.cycles",
    "tests.fixtures.scenes",
    "tests.fixtures.streams",
    "tests.fixtures.wires",
    "tests.fixtures.outages",
    "tests.fixtures.workers",
    "tests.fixtures.commands",
]

# A shell starts what runs in the background with SIGINT ignored, and every child inherits that: the
# programs that tests press Ctrl-C on would not hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the machine is shared. No database: a run leaves nothing behind.
hypothesis_settings.register_profile("tests", deadline=None, database=None, derandomize=True)
hypothesis_settings.load_profile("tests")
