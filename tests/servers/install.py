"""Find the servers that the tests need, and install them where that can be done without asking.

Run as ``python -m tests.servers.install rabbitmq pgbouncer nginx``: exits 0 when they are there (or
have just been installed), 1 with one message and the one command for this system otherwise, 130 after
Ctrl-C. Without RabbitMQ a test run is pointless; without any of the others only their own tests can't
run, so their absence is said and no failure.

Only the standard library is imported, since this may run before anything is installed.

Installing is done by root on Debian and its relatives only. Debian's packages start a broker on port
5672 of every interface, a pooler on 6432 and a web server on 80 as soon as they are unpacked; the tests
start private ones of their own, so the start is suppressed as Debian means it to be:
``/usr/sbin/policy-rc.d`` that exits 101 (/usr/share/doc/init-system-helpers/README.policy-rc.d.gz).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT = (
    "#!/bin/sh\n# Put here for a moment by LLMChatLinker's tests/servers/install.py.\nexit 101\n"
)

# Where packages keep the scripts themselves; what they put on PATH is often a wrapper.
SCRIPT_FOLDERS = (
    Path("/usr/lib/rabbitmq/bin"),  # Debian, Ubuntu, Fedora, RabbitMQ's own .deb and .rpm
    Path("/opt/homebrew/opt/rabbitmq/sbin"),  # Homebrew on Apple silicon
    Path("/usr/local/opt/rabbitmq/sbin"),  # Homebrew on Intel
    Path("/home/linuxbrew/.linuxbrew/opt/rabbitmq/sbin"),
    Path("/opt/rabbitmq/sbin"),  # the official container image
)


@dataclass(frozen=True)
class Server:
    """``commands``: package manager -> what installs it; sudo is put in front as needed.

    ``package`` is Debian's name of it, ``needed`` whether the test run is pointless without it.
    """

    name: str
    package: str
    commands: Mapping[str, str]
    manual: str
    megabytes: int
    needed: bool


RABBITMQ = Server(
    "RabbitMQ",
    "rabbitmq-server",
    {
        "apt": "apt-get install -y --no-install-recommends rabbitmq-server",
        "dnf": "dnf install -y rabbitmq-server",
        "pacman": "pacman -S --needed --noconfirm rabbitmq",
        "brew": "brew install rabbitmq",
    },
    "https://www.rabbitmq.com/docs/download",
    megabytes=35,
    needed=True,
)
PGBOUNCER = Server(
    "PgBouncer",
    "pgbouncer",
    {
        "apt": "apt-get install -y --no-install-recommends pgbouncer",
        "dnf": "dnf install -y pgbouncer",
        "pacman": "pacman -S --needed --noconfirm pgbouncer",
        "brew": "brew install pgbouncer",
    },
    "https://www.pgbouncer.org/install.html",
    megabytes=1,
    needed=False,
)
PROMTOOL = Server(
    "promtool",
    "prometheus",
    {
        "apt": "apt-get install -y --no-install-recommends prometheus",
        "dnf": "dnf install -y golang-github-prometheus",
        "pacman": "pacman -S --needed --noconfirm prometheus",
        "brew": "brew install prometheus",
    },
    "https://prometheus.io/download/",
    megabytes=23,
    needed=False,
)
FAKETIME = Server(
    "libfaketime",
    "libfaketime",
    {
        "apt": "apt-get install -y --no-install-recommends libfaketime",
        "dnf": "dnf install -y libfaketime",
        "pacman": "pacman -S --needed --noconfirm libfaketime",
        "brew": "brew install libfaketime",
    },
    "https://github.com/wolfcw/libfaketime",
    megabytes=1,
    needed=False,
)
NGINX = Server(
    "nginx",
    "nginx",
    {
        "apt": "apt-get install -y --no-install-recommends nginx",
        "dnf": "dnf install -y nginx",
        "pacman": "pacman -S --needed --noconfirm nginx",
        "brew": "brew install nginx",
    },
    "https://nginx.org/en/docs/install.html",
    megabytes=1,
    needed=False,
)

# os-release's ID or ID_LIKE -> package manager.
_FAMILIES: Mapping[str, str] = {
    "debian": "apt",
    "ubuntu": "apt",
    "fedora": "dnf",
    "rhel": "dnf",
    "centos": "dnf",
    "arch": "pacman",
}

_MANAGER_PROGRAMS: Mapping[str, str] = {
    "apt-get": "apt",
    "dnf": "dnf",
    "pacman": "pacman",
    "brew": "brew",
}


class InstallError(Exception):
    """A server could not be installed; the message says what to do."""


@dataclass(frozen=True)
class System:
    """What decides how a package is installed here.

    ``kind`` is ``platform.system()``, ``families`` os-release's ID and ID_LIKE in that order,
    ``programs`` those of the package managers' programs that are on PATH.
    """

    kind: str
    families: tuple[str, ...]
    programs: frozenset[str]
    root: bool

    @classmethod
    def here(cls) -> System:
        """The system that this process runs on."""
        try:
            release = platform.freedesktop_os_release()
        except OSError:  # macOS has no os-release
            release = {}
        families = (release.get("ID", ""), *release.get("ID_LIKE", "").split())
        programs = frozenset(name for name in _MANAGER_PROGRAMS if shutil.which(name))
        return cls(platform.system(), families, programs, os.geteuid() == 0)


def package_manager(system: System) -> str | None:
    """The package manager to use on ``system``: a key of ``commands``, or None if unknown."""
    if system.kind == "Darwin":
        return "brew"
    for family in system.families:
        if family in _FAMILIES:
            return _FAMILIES[family]
    for program, manager in _MANAGER_PROGRAMS.items():
        if program in system.programs:
            return manager
    return None


def install_command(system: System, server: Server = RABBITMQ) -> str | None:
    """The one command that installs ``server`` on ``system``, or None if none is known."""
    manager = package_manager(system)
    if manager is None:
        return None
    command = server.commands[manager]
    # Homebrew refuses to run as root; the others need it.
    return command if system.root or manager == "brew" else f"sudo {command}"


def can_install(system: System) -> bool:
    """Whether this module installs servers by itself on ``system``."""
    return system.root and package_manager(system) == "apt" and "apt-get" in system.programs


def advice(system: System, server: Server = RABBITMQ) -> str:
    """The message for a system on which ``server`` is absent and not installed by this module."""
    command = install_command(system, server)
    if command is None:
        return (
            f"{server.name} is not installed, and how to install it on this system is not known "
            f"here. See {server.manual}"
        )
    return f"{server.name} is not installed. Install it with: {command}"


def is_script_folder(folder: Path) -> bool:
    """Whether ``folder`` holds RabbitMQ's scripts themselves, not a package's wrappers.

    The scripts source ``rabbitmq-env`` from beside themselves; wrappers have none there.
    """
    return all((folder / name).is_file() for name in ("rabbitmq-server", "rabbitmq-env"))


def find_rabbitmq(
    which: Callable[[str], str | None] = shutil.which, folders: Iterable[Path] = SCRIPT_FOLDERS
) -> Path | None:
    """The folder with RabbitMQ's own ``rabbitmq-server`` and ``rabbitmqctl``, or None.

    PATH comes first, so that a RabbitMQ put there on purpose wins. Debian's
    ``/usr/sbin/rabbitmq-server`` leads to a wrapper that insists on being root or ``rabbitmq`` and
    always runs the system's node; the script proper is beside the wrapper.
    """
    on_path = which("rabbitmq-server")
    candidates = [] if on_path is None else [Path(on_path).parent, Path(on_path).resolve().parent]
    for folder in (*candidates, *folders):
        if is_script_folder(folder):
            return folder
    return None


def find_pgbouncer(which: Callable[..., str | None] = shutil.which) -> Path | None:
    """PgBouncer's program, or None. Debian puts it where only root's PATH leads."""
    found = which("pgbouncer") or which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    return None if found is None else Path(found)


def find_promtool(which: Callable[..., str | None] = shutil.which) -> Path | None:
    """The program that checks Prometheus' rules, or None."""
    found = which("promtool")
    return None if found is None else Path(found)


def find_faketime() -> Path | None:
    """The library that gives a process with threads another time, or None."""
    libraries = Path("/usr/lib")
    folders = (*libraries.glob("*/faketime"), libraries / "faketime", Path("/usr/lib64/faketime"))
    found = (folder / "libfaketimeMT.so.1" for folder in folders)
    return next((path for path in found if path.is_file()), None)


def find_nginx(which: Callable[..., str | None] = shutil.which) -> Path | None:
    """nginx's program, or None. Debian puts it where only root's PATH leads."""
    found = which("nginx") or which("nginx", path="/usr/sbin:/usr/local/sbin")
    return None if found is None else Path(found)


#: Name on the command line -> the server, and what finds it.
SERVERS: Mapping[str, tuple[Server, Callable[[], Path | None]]] = {
    "rabbitmq": (RABBITMQ, lambda: find_rabbitmq()),
    "pgbouncer": (PGBOUNCER, lambda: find_pgbouncer()),
    "promtool": (PROMTOOL, lambda: find_promtool()),
    "faketime": (FAKETIME, find_faketime),
    "nginx": (NGINX, lambda: find_nginx()),
}


def _forbids_starts(policy: Path) -> bool:
    """Whether the administrator's own policy-rc.d already keeps services from starting."""
    try:
        answer = subprocess.run(
            [policy, "rabbitmq-server", "start"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 101


@contextlib.contextmanager
def services_held(policy: Path = POLICY) -> Iterator[None]:
    """Keep packages from starting services while the block runs; then all is as it was before.

    A policy-rc.d that forbids the start is left alone. One that allows it is moved aside and moved
    back (a rename keeps owner, mode and times). What an earlier run of ours left behind when it was
    killed is removed.
    """
    aside = policy.with_name(policy.name + ".llmchatlinker-aside")
    ours = policy.is_file() and policy.read_text(errors="replace") == _POLICY_TEXT
    if policy.exists() and not ours and _forbids_starts(policy):
        yield
        return
    try:
        if os.path.lexists(policy) and not ours:
            policy.rename(aside)
        policy.write_text(_POLICY_TEXT)
        policy.chmod(0o755)
        yield
    finally:
        policy.unlink(missing_ok=True)
        if os.path.lexists(aside):
            aside.rename(policy)


@contextlib.contextmanager
def stops_noted() -> Iterator[list[int]]:
    """Note SIGINT, SIGTERM and SIGHUP in the list while the block runs, and do nothing else.

    Unwinding at once would lift the hold on services while dpkg still configures the package, and
    that would start the broker.
    """
    noted: list[int] = []
    before = {
        signum: signal.signal(signum, lambda number, _frame: noted.append(number))
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield noted
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _run(command: Sequence[str], stops: list[int]) -> int:
    """Run an apt command with its output in view; return its exit status.

    It gets a session of its own, so that a Ctrl-C reaches this process only: apt is then told to
    stop and waited for (it finishes the dpkg step it is in), and KeyboardInterrupt is raised.
    """
    print("+ " + " ".join(command), flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    told = False
    while process.poll() is None:
        if stops and not told:
            print("Stopping apt-get; this waits for the step it is in.", flush=True)
            process.send_signal(signal.SIGINT)
            told = True
        time.sleep(0.1)
    if stops:
        raise KeyboardInterrupt
    return process.returncode


def _has_candidate(package: str) -> bool:
    """Whether apt's lists, as they are now, offer the package."""
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return shown.returncode == 0 and "\nFilename:" in shown.stdout


def install_with_apt(package: str) -> None:
    """Install Debian's package of a server without starting it. Needs root.

    Raises InstallError when apt-get fails; its own output is above it by then.
    """
    update = ["apt-get", "update", "-q"]
    install = [
        "apt-get", "install", "-y", "-q", "--no-install-recommends",
        # Conffiles that an earlier removal left behind would otherwise be asked about.
        "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
        "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120",
        package,
    ]  # fmt: skip
    with stops_noted() as stops, services_held():
        # An update's status is not judged: one unreachable third-party archive fails it, and the
        # install may work all the same.
        stale = not _has_candidate(package)
        if stale:
            _run(update, stops)
        status = _run(install, stops)
        if status != 0 and not stale:
            print("The package lists may be stale: updating them and trying once more.", flush=True)
            _run(update, stops)
            status = _run(install, stops)
    if status != 0:
        raise InstallError(
            f"apt-get install {package} failed with status {status}; see its output above."
        )


def ensure(server: Server, find: Callable[[], Path | None], system: System) -> Path:
    """Where ``find`` finds the server, installed first if need be and if it can be.

    Raises InstallError, with the remedy, when it is absent and stays so.
    """
    found = find()
    if found is not None:
        return found
    if not can_install(system):
        raise InstallError(advice(system, server))
    print(
        f"{server.name} is not installed: installing it; about {server.megabytes} MB to fetch.",
        flush=True,
    )
    install_with_apt(server.package)
    found = find()
    if found is None:
        raise InstallError(
            f"apt-get installed {server.package}, but it is in none of the known places: "
            "put the folder with its programs on PATH."
        )
    print(
        f"{server.name} is installed. Its service was not started; it is enabled for the next boot."
    )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.servers.install",
        description="Find servers that the tests need; install them where that is possible.",
    )
    parser.add_argument("server", choices=list(SERVERS), nargs="+")
    try:
        for name in parser.parse_args(arguments).server:
            server, find = SERVERS[name]
            try:
                print(f"{server.name}: {ensure(server, find, System.here())}")
            except InstallError as error:
                if server.needed:
                    print(f"error: {error}", file=sys.stderr)
                    return 1
                print(f"{error}\nIts tests are skipped.", file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted; the system's policy on service starts is as it was.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
