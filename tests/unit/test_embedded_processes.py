"""Child processes: started, watched, stopped, and gone with their parent."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmchatlinker.embedded import processes
from llmchatlinker.embedded.processes import ManagedProcess, free_port, wait_until
from llmchatlinker.errors import StartFailed

psutil: Any = importlib.import_module("psutil")  # by name, since it has no types

READY = "print('ready', flush=True)"
FOREVER = f"import signal; {READY}; signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; signal.pause()"

Run = Callable[..., ManagedProcess]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start Python code as a managed process, and leave none behind."""
    started = []

    def start(code: str, **options: object) -> ManagedProcess:
        process = ManagedProcess(
            "child",
            [sys.executable, "-c", code],
            None,
            tmp_path / "child.log",
            **options,  # type: ignore[arg-type]
        )
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.stop(0)


def ready(process: ManagedProcess) -> ManagedProcess:
    wait_until(lambda: "ready" in process.log_text(), 20, process)
    return process


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether process ``pid`` has ended, or does within ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_process_that_was_never_started_is_not_alive(tmp_path: Path) -> None:
    process = ManagedProcess("child", ["true"], None, tmp_path / "log")
    assert (process.alive, process.pid, process.poll(), process.log_tail()) == (
        False,
        None,
        None,
        "",
    )
    process.stop()


def test_a_process_runs_until_it_is_stopped(run: Run) -> None:
    process = ready(run(FOREVER))
    assert process.alive
    assert process.pid
    process.stop()
    assert not process.alive
    assert process.poll() == -signal.SIGTERM
    assert gone(process.pid)


def test_starting_twice_keeps_the_first(run: Run) -> None:
    process = ready(run(FOREVER))
    first = process.pid
    process.start()
    assert process.pid == first


def test_stop_kills_a_process_that_ignores_the_stop_signal(run: Run) -> None:
    process = ready(run(DEAF))
    process.stop(0.1)
    assert process.poll() == -signal.SIGKILL


def test_stop_tries_its_signals_in_turn(run: Run) -> None:
    process = ready(run(DEAF, stop_signals=(signal.SIGTERM, signal.SIGUSR1)))
    process.stop(0.1)
    assert process.poll() == -signal.SIGUSR1


def test_a_killed_process_takes_its_own_children_along(run: Run) -> None:
    code = (
        "import signal, subprocess, sys;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
        "print('ready', child.pid, flush=True);"
        "signal.pause()"
    )
    process = ready(run(code))
    grandchild = int(process.log_text().split()[1])
    process.stop(0.1)
    assert gone(grandchild)


def test_a_child_is_in_a_session_of_its_own_so_that_ctrl_c_passes_it_by(run: Run) -> None:
    process = ready(run(FOREVER))
    assert process.pid
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid


def test_a_child_outlives_the_thread_that_started_it(run: Run) -> None:
    started: list[ManagedProcess] = []
    thread = threading.Thread(target=lambda: started.append(run(FOREVER)))
    thread.start()
    thread.join()
    ready(started[0])
    with pytest.raises(StartFailed, match="not ready"):
        wait_until(lambda: False, 0.3, started[0])
    assert started[0].alive


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can do this")
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    code = f"""
import signal, sys
from pathlib import Path
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
argv = [sys.executable, "-c", {DEAF!r}]
child = ManagedProcess("child", argv, None, Path({str(tmp_path)!r}, "log"))
child.start()
wait_until(lambda: "ready" in child.log_text(), 20, child)
print(child.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    assert gone(child)


def test_a_process_started_after_a_fork_works_too(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from llmchatlinker.embedded.processes import ManagedProcess
def start(name):
    argv = [sys.executable, "-c", {READY!r}]
    child = ManagedProcess(name, argv, None, Path({str(tmp_path)!r}, name))
    child.start()
    assert child.wait(20) == 0, child.log_text()
start("before")
if pid := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
start("after")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False)
    assert done.returncode == 0


def test_a_program_that_is_not_there_ends_at_once_and_the_log_says_why(tmp_path: Path) -> None:
    process = ManagedProcess("child", ["/no/such/program"], None, tmp_path / "log")
    process.start()
    with pytest.raises(StartFailed, match=r"ended with code 127(.|\n)*No such file"):
        wait_until(lambda: False, 20, process)


def test_waiting_fails_early_with_the_end_of_the_log_when_the_process_has_died(run: Run) -> None:
    process = run("print('the reason'); raise SystemExit(3)")
    with pytest.raises(StartFailed, match=r"code 3(.|\n)*the reason") as caught:
        wait_until(lambda: False, 60, process, "Do this.")
    assert caught.value.remedy == "Do this."


def test_waiting_for_a_process_that_is_never_ready_ends_in_time(run: Run) -> None:
    process = ready(run(FOREVER))
    with pytest.raises(StartFailed, match=r"not ready after 0\.1 s"):
        wait_until(lambda: False, 0.1, process)


def test_the_log_tail_is_of_the_last_start_only(run: Run) -> None:
    process = run("print('first')")
    process.wait(20)
    process.argv[-1] = "for number in range(5): print(number)"
    process.start()
    process.wait(20)
    assert process.log_text() == "0\n1\n2\n3\n4\n"
    assert process.log_tail(2) == "3\n4"
    assert "first" in process.log_path.read_text()


def test_the_log_is_private(run: Run) -> None:
    log = ready(run(FOREVER)).log_path
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_large_log_is_put_aside(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 3)
    process = run("print('first')")
    process.wait(20)
    process.argv[-1] = "print('second')"
    process.start()
    process.wait(20)
    assert process.log_path.read_text() == "second\n"
    assert process.log_path.with_name("child.log.1").read_text() == "first\n"


def test_a_log_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    process = ManagedProcess("child", ["true"], None, tmp_path / "log")
    with pytest.raises(StartFailed, match="can't be started"):
        process.start()
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_log_folder_and_an_unknown_user_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(StartFailed) as caught:
        ManagedProcess("child", ["true"], None, tmp_path / "no" / "log").start()
    assert str(tmp_path / "no") in caught.value.remedy
    with pytest.raises(StartFailed, match="no user no-such-user"):
        ManagedProcess("child", ["true"], None, tmp_path / "log", "no-such-user").start()


def test_environment_and_working_directory_are_the_childs(run: Run, tmp_path: Path) -> None:
    process = ManagedProcess(
        "child",
        [sys.executable, "-c", "import os; print(os.environ['GREETING'], os.getcwd())"],
        {"GREETING": "hello"},
        tmp_path / "log",
        cwd=tmp_path,
    )
    process.start()
    assert process.wait(20) == 0
    assert process.log_text() == f"hello {tmp_path}\n"


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()[1] > 0
