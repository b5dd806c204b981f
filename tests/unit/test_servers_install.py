"""What installs a server where, how it is found, and how service starts are held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import install
from tests.servers.install import (
    PGBOUNCER,
    RABBITMQ,
    InstallError,
    Server,
    System,
    advice,
    can_install,
    ensure,
    find_nginx,
    find_pgbouncer,
    find_rabbitmq,
    install_command,
    package_manager,
    services_held,
)

APT = "apt-get install -y --no-install-recommends rabbitmq-server"


def system(
    kind: str = "Linux",
    families: tuple[str, ...] = (),
    programs: tuple[str, ...] = (),
    root: bool = True,
) -> System:
    return System(kind, families, frozenset(programs), root)


@pytest.mark.parametrize(
    ("families", "manager"),
    [
        (("debian",), "apt"),
        (("ubuntu", "debian"), "apt"),
        (("linuxmint", "ubuntu", "debian"), "apt"),
        (("fedora",), "dnf"),
        (("rocky", "rhel", "centos", "fedora"), "dnf"),
        (("arch",), "pacman"),
        (("manjaro", "arch"), "pacman"),
    ],
)
def test_a_distribution_is_known_by_its_family(families: tuple[str, ...], manager: str) -> None:
    assert package_manager(system(families=families)) == manager


def test_an_unknown_distribution_is_known_by_the_package_manager_that_it_has() -> None:
    assert package_manager(system(families=("lonely",), programs=("dnf",))) == "dnf"


def test_homebrew_on_linux_does_not_win_over_the_distribution() -> None:
    assert package_manager(system(families=("debian",), programs=("brew", "apt-get"))) == "apt"


@pytest.mark.parametrize(
    ("where", "command"),
    [
        (system(families=("debian",)), APT),
        (system(families=("debian",), root=False), f"sudo {APT}"),
        (system(families=("fedora",), root=False), "sudo dnf install -y rabbitmq-server"),
        (system(families=("arch",), root=False), "sudo pacman -S --needed --noconfirm rabbitmq"),
        (system("Darwin", root=False), "brew install rabbitmq"),
        (system("Darwin"), "brew install rabbitmq"),
        (system(families=("lonely",)), None),
    ],
)
def test_there_is_one_command_for_each_system(where: System, command: str | None) -> None:
    assert install_command(where) == command


def test_only_root_on_debian_and_its_relatives_has_it_installed() -> None:
    assert can_install(system(families=("ubuntu", "debian"), programs=("apt-get",)))
    assert not can_install(system(families=("debian",), programs=("apt-get",), root=False))
    assert not can_install(system(families=("debian",)))
    assert not can_install(system(families=("fedora",), programs=("dnf",)))
    assert not can_install(system("Darwin", programs=("brew",)))


def test_advice_names_the_command_or_else_the_manual() -> None:
    assert advice(system(families=("debian",), root=False)).endswith(f"sudo {APT}")
    assert "https://www.rabbitmq.com/docs/download" in advice(system(families=("lonely",)))
    assert advice(system(families=("fedora",)), PGBOUNCER).endswith("dnf install -y pgbouncer")


def put_scripts(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("rabbitmq-server", "rabbitmq-env", "rabbitmqctl"):
        (folder / name).touch(mode=0o755)
    return folder


def on_path(path: Path | None) -> Callable[[str], str | None]:
    return lambda _name: None if path is None else str(path)


def test_scripts_on_path_are_found_where_they_are(tmp_path: Path) -> None:
    folder = put_scripts(tmp_path / "opt/rabbitmq/sbin")
    assert find_rabbitmq(on_path(folder / "rabbitmq-server"), []) == folder


def test_debians_wrapper_is_followed_to_the_scripts_beside_it(tmp_path: Path) -> None:
    folder = put_scripts(tmp_path / "usr/lib/rabbitmq/bin")
    (folder / "rabbitmq-script-wrapper").touch(mode=0o755)
    sbin = tmp_path / "usr/sbin"
    sbin.mkdir()
    (sbin / "rabbitmq-server").symlink_to("../lib/rabbitmq/bin/rabbitmq-script-wrapper")
    assert find_rabbitmq(on_path(sbin / "rabbitmq-server"), []) == folder


def test_a_wrapper_that_leads_nowhere_is_passed_over_for_a_known_folder(tmp_path: Path) -> None:
    wrapper = tmp_path / "sbin/rabbitmq-server"
    wrapper.parent.mkdir()
    wrapper.touch(mode=0o755)
    folder = put_scripts(tmp_path / "lib/rabbitmq/bin")
    assert find_rabbitmq(on_path(wrapper), [tmp_path / "absent", folder]) == folder


def test_without_scripts_nothing_is_found(tmp_path: Path) -> None:
    assert find_rabbitmq(on_path(None), [tmp_path]) is None


@pytest.mark.parametrize(("find", "name"), [(find_pgbouncer, "pgbouncer"), (find_nginx, "nginx")])
def test_a_server_is_found_where_an_ordinary_users_path_does_not_lead(
    find: Callable[..., Path | None], name: str
) -> None:
    def which(name: str, path: str = "/usr/bin") -> str | None:
        return f"/usr/sbin/{name}" if "/usr/sbin" in path else None

    assert find(which) == Path("/usr/sbin") / name


def test_an_absent_server_that_may_not_be_installed_is_an_error_with_the_command() -> None:
    with pytest.raises(InstallError, match="Install it with: sudo apt-get install"):
        ensure(
            RABBITMQ,
            lambda: None,
            system(families=("debian",), programs=("apt-get",), root=False),
        )


def test_the_command_exits_1_with_the_message_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "ensure", _absent)
    assert install.main(["rabbitmq", "pgbouncer"]) == 1
    assert capsys.readouterr().err == "error: RabbitMQ is not installed.\n"


def test_without_pgbouncer_the_run_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "ensure", _absent)
    assert install.main(["pgbouncer"]) == 0
    assert capsys.readouterr().err == "PgBouncer is not installed.\nIts tests are skipped.\n"


def _absent(server: Server, *_: object) -> Path:
    raise InstallError(f"{server.name} is not installed.")


def test_the_command_exits_130_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "ensure", interrupted)
    assert install.main(["rabbitmq"]) == 130


def write_policy(policy: Path, status: int) -> tuple[str, int, int]:
    policy.write_text(f"#!/bin/sh\nexit {status}\n")
    policy.chmod(0o750)
    return state(policy)


def state(policy: Path) -> tuple[str, int, int]:
    """What must be the same afterwards: content, inode, mode."""
    return policy.read_text(), policy.stat().st_ino, policy.stat().st_mode


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy-rc.d"


def test_without_a_policy_there_is_one_for_the_time_of_the_install(policy: Path) -> None:
    with services_held(policy):
        assert install._forbids_starts(policy)
    assert list(policy.parent.iterdir()) == []


def test_a_policy_that_allows_starts_is_set_aside_and_put_back_as_it_was(policy: Path) -> None:
    before = write_policy(policy, 0)
    with services_held(policy):
        assert install._forbids_starts(policy)
    assert state(policy) == before
    assert list(policy.parent.iterdir()) == [policy]


def test_a_policy_that_forbids_starts_is_not_touched(policy: Path) -> None:
    before = write_policy(policy, 101)
    with services_held(policy):
        assert state(policy) == before
    assert state(policy) == before


@pytest.mark.parametrize("error", [InstallError("no"), KeyboardInterrupt()])
def test_the_policy_is_put_back_whatever_happens(policy: Path, error: BaseException) -> None:
    before = write_policy(policy, 0)
    with pytest.raises(type(error)), services_held(policy):
        raise error
    assert state(policy) == before
    assert list(policy.parent.iterdir()) == [policy]


def test_what_a_killed_run_left_behind_is_cleared_up_by_the_next(policy: Path) -> None:
    before = write_policy(policy, 0)
    killed = services_held(policy)
    killed.__enter__()
    with services_held(policy):
        assert install._forbids_starts(policy)
    assert state(policy) == before
    assert list(policy.parent.iterdir()) == [policy]
