"""The process that serves the local model: llama.cpp's server, from the wheel ``xllamacpp``.

    python -m llmchatlinker.embedded.model_server --port 8089

It answers as OpenAI's API does, on 127.0.0.1 only, and ends on SIGTERM or Ctrl-C with exit code 0,
in the middle of an answer if need be. Exit code 1: it could not start, and says why.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pwd
import signal
import sys
from pathlib import Path
from typing import Any

from llmchatlinker.embedded.launch import become, die_with_parent
from llmchatlinker.embedded.model import MODEL_NAME, require_model
from llmchatlinker.errors import StartFailed

DEFAULT_PORT = 8089

SLOTS = 4
SLOT_TOKENS = 4096  # prompt and answer together; the model was trained with up to 8192

END_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; ``argv`` as in --help."""
    options = _parser().parse_args(argv)
    # Blocked before any thread is there, so that in all threads only sigwait below gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    parent = os.getppid()
    try:
        server = serve(require_model(), options.port)
        if options.user:
            _give_up_root(options.user, parent)
    except StartFailed as error:
        sys.exit(f"{error}\n{error.remedy}")
    print(f"{MODEL_NAME} answers on {server.listening_address}/v1/chat/completions", flush=True)
    signal.sigwait(END_SIGNALS)
    # Not by way of the server's destructor, which waits for the answers under way.
    os._exit(0)


def serve(model: Path, port: int) -> Any:
    """Load ``model`` and serve it on ``port`` (0: a free one) from threads of this process.

    Returns ``xllamacpp.Server``, whose ``listening_address`` is its base URL. Raises
    ``StartFailed``.
    """
    try:
        # Imported by name, since it has no types.
        xllamacpp: Any = importlib.import_module("xllamacpp")
    except ImportError as error:
        raise StartFailed(
            "The Python package xllamacpp, which runs the model, is not installed.",
            {"remedy": "pip install xllamacpp"},
        ) from error
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_TOKENS
    # One core is left to the rest of the system: llama.cpp's threads spin while they wait for each
    # other, and with every core busy an answer takes several times as long on all as on all but one.
    params.cpuparams.n_threads = max(1, _cpus() - 1)
    # 8 bits per value of the attention cache: 170 MB less than 16 for four slots, at the same
    # speed.
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_Q8_0
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.warmup = False
    # Nothing but the API: no page, no look into the slots, no leave for web pages to call it.
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = ""
    params.verbosity = 1  # errors only; no prompt is in any of them
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise StartFailed(
            f"The model could not be served on port {port}; the reason stands above.",
            {"remedy": "When it is the port: choose another one with --port."},
        ) from error


def _cpus() -> int:
    # What this process may use, which in a container is less than the machine has.
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _give_up_root(user: str, parent: int) -> None:
    # Only now, since the environment that Python loads from may be closed to that user.
    try:
        entry = pwd.getpwnam(user)
        become(entry.pw_uid, entry.pw_gid)
    except (KeyError, OSError) as error:
        raise StartFailed(
            f"Can't become user {user}: {error}.", {"remedy": "Name another with --user."}
        ) from error
    # The kernel forgets this with every change of user.
    die_with_parent(signal.SIGKILL, parent)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llmchatlinker.embedded.model_server",
        description=f"Serve {MODEL_NAME} with an OpenAI-compatible API on 127.0.0.1.",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help=f"the port to listen on; 0 means any free one (default: {DEFAULT_PORT})",
    )
    parser.add_argument("--user", help="the user to become once the model is loaded; takes root")
    return parser


if __name__ == "__main__":
    main()
