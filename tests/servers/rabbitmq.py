"""A real RabbitMQ node of the tests' own: private, on the loopback only, gone without a trace.

It runs beside a system's RabbitMQ and beside other private nodes, as any user: whatever two nodes
would share by default (home and cookie, ports, epmd, data, logs, plugins, the configuration under
/etc) is its own. It is up in 6 to 9 s and takes about 140 MB; ``add_vhost`` gives each test a clean
broker in 0.03 s.

Facts from: RabbitMQ's scripts ``rabbitmq-server``, ``rabbitmq-env`` and ``rabbitmqctl`` (3.10),
https://www.rabbitmq.com/docs/configure, and OTP's manual pages of erl, epmd and erl_call.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

from kombu import Connection

from tests.servers import HOST, end_with_helpers, free_ports, listens, log_tail, start_child
from tests.servers.install import System, advice, find_rabbitmq

USER = "llmchatlinker"
START_TIMEOUT = 180.0  # seconds; a machine under load takes several times the usual 6 to 9
STOP_TIMEOUT = 30.0  # seconds; 1 is usual, 6 with the management plugin
CALL_TIMEOUT = 120.0  # seconds; half a second is usual
_PORT_ATTEMPTS = 5
_NOT_CONNECTED = "failed to connect to node"  # so that nothing was evaluated
_CONNECT_AGAIN = (0.1, 0.5, 1.0)  # seconds between further tries
_PORT_TAKEN = ("eaddrinuse", "dist_port_already_used")  # as the node's log has it


class RabbitMQError(Exception):
    """A private RabbitMQ node could not do what was asked; the message says why."""


class _PortTaken(RabbitMQError):
    """Another process took one of the node's ports before the node did."""


def _binary(text: str) -> str:
    """An Erlang expression for ``text`` as a UTF-8 binary, whatever characters are in it."""
    return f'base64:decode("{base64.b64encode(text.encode()).decode()}")'


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise RabbitMQError(f"Erlang's {name} is not on PATH: add the folder that has it and erl.")
    return path


def _script(name: str) -> str:
    folder = find_rabbitmq()
    if folder is None:
        raise RabbitMQError(advice(System.here()))
    return str(folder / name)


class PrivateRabbitMQ:
    """One private node; a context manager, too. Not for several threads at once.

    ``directory`` must be new or empty, and is removed by ``stop``; without it a temporary one is
    made. ``management`` enables the management plugin (see ``management_url``). ``settings`` are
    further lines of rabbitmq.conf: ``{"consumer_timeout": "10000"}``.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        management: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._given_directory = directory
        self._management = management
        self._settings = dict(settings or {})
        self._password = secrets.token_hex(16)
        self._node = f"llmchatlinker-{secrets.token_hex(4)}@localhost"
        self._amqp_port = self._dist_port = self._epmd_port = self._http_port = 0
        self._directory: Path | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._beam: subprocess.Popen[bytes] | None = None
        self._owner = 0

    # --- its life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the node; return when it takes AMQP connections.

        Raises RabbitMQError, with the end of the node's log, when it does not within
        START_TIMEOUT seconds; nothing is left behind then.
        """
        if self._directory is not None:
            raise RabbitMQError("This RabbitMQ node is started already: call stop() or restart().")
        _script("rabbitmq-server")  # the clearest error comes first
        self._owner = os.getpid()
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            atexit.register(self._stop_at_exit)
            try:
                self._make_directory()
                self._write_config(free_ports(4))
                self._boot()
                return
            except BaseException as error:
                self.stop()
                if not isinstance(error, _PortTaken) or attempt == _PORT_ATTEMPTS:
                    raise

    def stop(self) -> None:
        """Stop the node in an orderly way, then by force; remove its directory. May be repeated."""
        atexit.unregister(self._stop_at_exit)
        self._end_processes()
        if self._directory is not None:
            shutil.rmtree(self._directory)
            self._directory = None

    def kill(self) -> None:
        """End the node with SIGKILL, as a power cut would; ``restart`` brings it back."""
        self._end_beam(signal.SIGKILL)

    def restart(self) -> None:
        """Start the node again on the same ports and data, after stopping it if it runs.

        Raises RabbitMQError when it does not come back within START_TIMEOUT seconds.
        """
        self._end_beam(signal.SIGTERM)
        self._boot()

    def freeze(self) -> None:
        """Stop the node's clock (SIGSTOP): connections stay open, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen node go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- where it is --------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The process id of the node's Erlang VM."""
        if self._beam is None:
            raise RabbitMQError("This RabbitMQ node does not run: call start() or restart() first.")
        return self._beam.pid

    @property
    def directory(self) -> Path:
        """Where the node keeps everything: ``log/``, ``mnesia/``, its configuration."""
        if self._directory is None:
            raise RabbitMQError("This RabbitMQ node is not started: call start() first.")
        return self._directory

    @property
    def url(self) -> str:
        """The AMQP URL of the virtual host ``/``, with user and password."""
        return self._url("/")

    @property
    def management_url(self) -> str:
        """The management plugin's address, with user and password; its HTTP API is at ``/api``."""
        if not self._management:
            raise RabbitMQError("No management plugin here: make PrivateRabbitMQ(management=True).")
        return f"http://{USER}:{self._password}@{HOST}:{self._http_port}"

    def _url(self, vhost: str) -> str:
        path = vhost if vhost == "/" else quote(vhost, safe="")
        return f"amqp://{USER}:{self._password}@{HOST}:{self._amqp_port}/{path}"

    # --- orders to it -------------------------------------------------------------------------

    def ctl(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` with these arguments prints; about 0.4 s, for its own Erlang VM.

        Raises RabbitMQError with its complaint when it fails.
        """
        return self._call([_script("rabbitmqctl"), "--quiet", *arguments])

    def add_vhost(self, name: str) -> str:
        """Make the virtual host ``name``, all permissions in it ours; return its URL."""
        name_, user, every = _binary(name), _binary(USER), _binary(".*")
        self._evaluate(
            f"ok = rabbit_vhost:add({name_}, {user}), rabbit_auth_backend_internal:"
            f"set_permissions({user}, {name_}, {every}, {every}, {every}, {user})"
        )
        return self._url(name)

    def delete_vhost(self, name: str) -> None:
        """Delete the virtual host ``name`` with its queues; its connections are closed.

        The queues go first, one by one: left to the virtual host's own end, each quorum queue
        takes a second or more.
        """
        name_, user = _binary(name), _binary(USER)
        self._evaluate(
            f"[rabbit_amqqueue:delete(Queue, false, false, {user})"
            f" || Queue <- rabbit_amqqueue:list({name_})], rabbit_vhost:delete({name_}, {user})"
        )

    def set_policy(
        self,
        vhost: str,
        name: str,
        pattern: str,
        definition: Mapping[str, object],
        *,
        apply_to: str = "queues",
        priority: int = 0,
    ) -> None:
        """Do as ``rabbitmqctl set_policy`` does, in some milliseconds.

        Raises RabbitMQError when the broker refuses the definition.
        """
        texts = [vhost, name, pattern, json.dumps(definition)]
        arguments = [*map(_binary, texts), str(priority), _binary(apply_to), _binary(USER)]
        self._evaluate(f"rabbit_policy:parse_set({', '.join(arguments)})")

    def queues(self, vhost: str) -> dict[str, tuple[int, int, int]]:
        """Messages ready, messages unacknowledged and consumers of now, by the queue's name.

        A quorum queue's own machine is asked: what ``list_queues`` shows of it is up to five seconds
        old (rabbit_quorum_queue.erl, tick).
        """
        told = self._told(
            "lists:flatten([begin Name = element(4, amqqueue:get_name(Q)),"
            " Counts = case amqqueue:get_type(Q) of rabbit_quorum_queue ->"
            " [begin {ok, {_, N}, _} = ra:local_query(amqqueue:get_pid(Q), F), N end || F <-"
            " [fun rabbit_fifo:query_messages_ready/1, fun rabbit_fifo:query_messages_checked_out/1,"
            " fun rabbit_fifo:query_consumer_count/1]];"
            " _ -> [N || {_, N} <- rabbit_amqqueue:info(Q,"
            " [messages_ready, messages_unacknowledged, consumers])] end,"
            ' io_lib:format("~s ~b ~b ~b;", [Name | Counts]) end'
            f" || Q <- rabbit_amqqueue:list({_binary(vhost)})])"
        )
        rows = [row.split() for row in told.split(";") if row]
        return {name: (int(r), int(u), int(c)) for name, r, u, c in rows}

    def connections(self, vhost: str) -> int:
        """How many connections there are to a virtual host."""
        return len(self.peers(vhost))

    def peers(self, vhost: str) -> list[int]:
        """The ports at the other ends of its connections, as ``list_connections`` has them."""
        told = self._told(
            'lists:flatten([io_lib:format("~b ", [P]) || [{peer_port, P}, {vhost, V}]'
            " <- rabbit_networking:connection_info_all([peer_port, vhost]),"
            f" V =:= {_binary(vhost)}])"
        )
        return [int(port) for port in told.split()]

    def close_connections(self, vhost: str, reason: str) -> None:
        """Close every connection to a virtual host, as ``rabbitmqctl close_all_connections`` does."""
        self._evaluate(
            f"[rabbit_networking:close_connection(P, {_binary(reason)})"
            " || [{pid, P}, {vhost, V}] <- rabbit_networking:connection_info_all([pid, vhost]),"
            f" V =:= {_binary(vhost)}], ok"
        )

    def _evaluate(self, expression: str) -> None:
        """Evaluate Erlang that must give ``ok`` on the node."""
        answer = self._answer(expression)
        if answer != "ok":
            raise RabbitMQError(f"RabbitMQ refused: {answer}")

    def _told(self, expression: str) -> str:
        """Evaluate Erlang that gives a string."""
        answer = self._answer(expression)
        if not answer.startswith('"'):  # an empty one is an empty list
            return ""
        return answer.strip('"')

    def _answer(self, expression: str) -> str:
        """What Erlang on the node evaluates to.

        erl_call is a small C program and takes milliseconds; where Erlang came without it,
        ``rabbitmqctl eval`` does the same in 0.4 s. The functions called are those that rabbitmqctl
        calls there itself, the same from 3.8 to 4.x.
        """
        erl_call = shutil.which("erl_call")
        if erl_call is None:
            return self.ctl("eval", f"{expression}.").strip()
        node = f"{HOST}:{self._dist_port}"
        for pause in (*_CONNECT_AGAIN, None):
            try:
                said = self._call([erl_call, "-address", node, "-e"], f"{expression}.\n").strip()
                break
            except RabbitMQError as error:
                if pause is None or _NOT_CONNECTED not in str(error):
                    raise
                # The node is busy, or has not yet let go of the call before; nothing tells when it has.
                time.sleep(pause)
        if not said.startswith("{ok, "):
            raise RabbitMQError(f"RabbitMQ refused: {said}")
        return said.removeprefix("{ok, ").removesuffix("}")

    def _call(self, command: list[str], text: str = "") -> str:
        """The output of a command run in the node's environment."""
        try:
            done = subprocess.run(
                command,
                input=text,
                capture_output=True,
                text=True,
                env=self._environment(),
                cwd=self.directory,
                timeout=CALL_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            name = Path(command[0]).name
            raise RabbitMQError(f"{name} had no answer after {CALL_TIMEOUT:g} s.") from None
        if done.returncode != 0:
            complaint = " ".join((done.stderr or done.stdout).split())[:500]
            raise RabbitMQError(f"{Path(command[0]).name} failed: {complaint}")
        return done.stdout

    # --- how it is run ------------------------------------------------------------------------

    def _make_directory(self) -> None:
        if self._given_directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-rabbitmq-"))
        else:
            given = self._given_directory.resolve()
            given.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(given.iterdir()):
                raise RabbitMQError(f"{given} is not empty: name a new or an empty directory.")
            self._directory = given
        cookie = self._directory / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)  # Erlang refuses one that others may read

    def _write_config(self, ports: list[int]) -> None:
        """Take these four ports; write rabbitmq.conf and the list of plugins."""
        self._amqp_port, self._dist_port, self._epmd_port, self._http_port = ports
        lines = {
            "default_user": USER,
            "default_pass": self._password,
            # Nothing here is worth keeping, and a full /tmp would block publishers without a word.
            "disk_free_limit.absolute": "1MB",
            "log.console": "false",
        }
        if self._management:
            lines |= {"management.tcp.ip": HOST, "management.tcp.port": str(self._http_port)}
        text = "".join(f"{key} = {value}\n" for key, value in (lines | self._settings).items())
        (self.directory / "rabbitmq.conf").write_text(text)
        plugins = "[rabbitmq_management].\n" if self._management else "[].\n"
        (self.directory / "enabled_plugins").write_text(plugins)

    def _environment(self) -> dict[str, str]:
        """The whole environment of the node and of its tools; only PATH is inherited."""
        home = self.directory
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",  # rabbitmqctl warns of anything else
            "HOME": str(home),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self._amqp_port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            # These three stay absent; unnamed, the system's own under /etc/rabbitmq are read.
            "RABBITMQ_CONFIG_FILES": str(home / "conf.d" / "*.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            # With input "allowed" the script becomes the Erlang VM instead of minding it, so that
            # the pid that we get is the node's; -noinput then takes the input away again.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            # For every Erlang VM, rabbitmqctl's too: start no epmd, which would outlive it, and
            # keep the distribution port on the loopback.
            "ERL_AFLAGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_CRASH_DUMP_BYTES": "0",  # the log says what is to be said
        }

    def _start_child(self, *command: str) -> subprocess.Popen[bytes]:
        log = self.directory / "console.log"
        return start_child(command, self._environment(), self.directory, log)

    def _boot(self) -> None:
        """Start epmd (if it does not run) and the VM; return when AMQP answers."""
        deadline = time.monotonic() + START_TIMEOUT
        if self._epmd is None or self._epmd.poll() is not None:
            self._epmd = self._start_child(
                _program("epmd"), "-port", str(self._epmd_port), "-address", HOST
            )
            self._wait_until(self._epmd_answers, "epmd", self._epmd, deadline)
        self._beam = self._start_child(_script("rabbitmq-server"))
        self._wait_until(self._amqp_answers, "RabbitMQ", self._beam, deadline)

    def _wait_until(
        self,
        answers: Callable[[], bool],
        name: str,
        process: subprocess.Popen[bytes],
        deadline: float,
    ) -> None:
        while not answers():
            status, home = process.poll(), self.directory
            if status is not None or time.monotonic() > deadline:
                tail = log_tail([home / "console.log", *home.glob("log/*.log")])
                end = "did not answer in time" if status is None else f"ended with status {status}"
                # epmd ends without a word when its port is taken; the node says so.
                taken = process is self._epmd or any(sign in tail for sign in _PORT_TAKEN)
                error = _PortTaken if taken and status is not None else RabbitMQError
                raise error(f"Starting the private RabbitMQ node: {name} {end}. Its log:\n{tail}")
            time.sleep(0.1)

    def _epmd_answers(self) -> bool:
        """Whether our own epmd listens: whoever else has its port would take connections, too."""
        return self._epmd is not None and listens(self._epmd, self._epmd_port)

    def _amqp_answers(self) -> bool:
        """Whether a whole AMQP handshake works, authentication included."""
        connection = Connection(self.url, connect_timeout=2, transport_options={"read_timeout": 5})
        try:
            with connection:
                connection.connect()
        except (OSError, *connection.connection_errors):
            return False
        except connection.channel_errors as error:  # among them, that the password is refused
            raise RabbitMQError(
                f"The private RabbitMQ node turns its own user away: {error}"
            ) from error
        return True

    def _end_beam(self, how: signal.Signals) -> None:
        beam, self._beam = self._beam, None
        if beam is not None:
            end_with_helpers(beam, how, STOP_TIMEOUT)

    def _end_processes(self) -> None:
        self._end_beam(signal.SIGTERM)
        epmd, self._epmd = self._epmd, None
        if epmd is not None:
            end_with_helpers(epmd, signal.SIGTERM, STOP_TIMEOUT)

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:  # a forked child must leave its parent's node alone
            self.stop()
