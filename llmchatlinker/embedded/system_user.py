"""The system user that PostgreSQL and the model server run as when LLMChatLinker runs as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from llmchatlinker.errors import StartFailed

NAME = "llmchatlinker"

# A root shell opened with plain `su` often has no sbin folder in its PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def ensure_system_user() -> pwd.struct_passwd:
    """The system user, created if it is missing: no login shell, no home, a group of its own.

    Needs root. Raises ``StartFailed`` when it can't be created.
    """
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        pass
    by_hand = (
        f"Create the system user {NAME} yourself, with a group of its own, no home and no login."
    )
    useradd = shutil.which("useradd", path=SEARCH_PATH)
    if useradd is None:
        raise StartFailed(
            "PostgreSQL refuses to run as root, and there is no useradd "
            f"to create the user {NAME} for it.",
            {"remedy": f"{by_hand} Or run as an ordinary user."},
        )
    nologin = shutil.which("nologin", path=SEARCH_PATH) or "/bin/false"
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    done = subprocess.run(
        [useradd, *options, "--shell", nologin, NAME], capture_output=True, text=True, check=False
    )
    try:
        # Asked whatever useradd says: another process may have created the user at the same time.
        return pwd.getpwnam(NAME)
    except KeyError as error:
        raise StartFailed(
            f"The system user {NAME} can't be created: {done.stderr.strip()}.", {"remedy": by_hand}
        ) from error


def require_access(folder: Path, user: pwd.struct_passwd) -> None:
    """Raise ``StartFailed`` naming the first folder down to ``folder`` that is shut to ``user``.

    Folders that are not there yet count as open.
    """
    for step in [*reversed(folder.absolute().parents), folder.absolute()]:
        if step.is_dir() and not _may_enter(step, user):
            raise StartFailed(
                f"The system user {user.pw_name}, which PostgreSQL runs as, can't enter {step}, "
                f"and so can't reach {folder}.",
                {
                    "remedy": "Choose a folder that every user may pass through, as "
                    f"/var/lib/llmchatlinker, or allow it: chmod o+x {step}"
                },
            )


def _may_enter(folder: Path, user: pwd.struct_passwd) -> bool:
    # The kernel is asked, not the mode bits: access lists and mount options count as well.
    probe = subprocess.run(
        [shutil.which("test", path=SEARCH_PATH) or "/usr/bin/test", "-x", str(folder)],
        cwd="/",
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        check=False,
    )
    return probe.returncode == 0
