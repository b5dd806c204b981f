"""LiteLLM's proxy in an environment of its own, made once: what a user would put there instead of ours.

``.bench/litellm-<version>`` is a virtual environment beside ``.venv``, as large as LiteLLM is (about
750 MB). The proxy runs as one process on 127.0.0.1, without telemetry, without a database, and with
the prices that it comes with instead of newer ones from the network
(https://docs.litellm.ai/docs/proxy/config_settings).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sides import ROOT
from llmchatlinker.embedded.processes import ManagedProcess, free_port, wait_until

VERSION = "1.106.0"
CACHE = ROOT / ".bench"
HOST = "127.0.0.1"
START_SECONDS = 180.0
#: Else each request is a line in a log: nothing that somebody would want from a proxy under load.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"uvicorn.access": {"level": "WARNING"}},
}


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs. ``url``: its base; ``headers``: what its clients must send."""

    url: str
    headers: dict[str, str]
    process: ManagedProcess


def installed() -> Path:
    """LiteLLM's command, installed from PyPI where it is not there yet."""
    folder = CACHE / f"litellm-{VERSION}"
    command, done = folder / "bin" / "litellm", folder / "installed"
    if done.exists():
        return command
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    subprocess.run([*pip, "-q", f"litellm[proxy]=={VERSION}"], check=True)
    done.touch()
    return command


@contextmanager
def litellm(command: Path, directory: Path, models: Mapping[str, str]) -> Iterator[Proxy]:
    """A proxy that is ready. ``models``: names, and the base URL of the provider of each."""
    port, key = free_port(), f"sk-{secrets.token_hex(8)}"
    listed = [
        {
            "model_name": name,
            "litellm_params": {"model": "openai/echo", "api_base": url, "api_key": "none"},
        }
        for name, url in models.items()
    ]
    settings = {"telemetry": False, "num_retries": 0, "request_timeout": 120}
    config = directory / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": listed, "litellm_settings": settings}))
    logging = directory / "litellm-logging.json"
    logging.write_text(json.dumps(LOGGING))
    started = [str(command), "--config", str(config), "--log_config", str(logging)]
    process = ManagedProcess(
        "LiteLLM",
        [*started, "--host", HOST, "--port", str(port), "--num_workers", "1"],
        {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            "LITELLM_MASTER_KEY": key,
            "LITELLM_TELEMETRY": "False",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
        },
        directory / "litellm.log",
        cwd=directory,
    )
    process.start()
    try:
        wait_until(lambda: _lives(port), START_SECONDS, process)
        headers = {"Authorization": f"Bearer {key}"}
        yield Proxy(f"http://{HOST}:{port}/v1", headers, process)
    finally:
        process.stop()


def _lives(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/health/liveliness", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False
