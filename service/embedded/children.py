"""How the embedded programs are started, what they see, and how they end.

A child lives no longer than we do: on Linux the kernel signals it when the thread that started it
is gone, elsewhere a shell that reads a pipe from us does so at its end. As root, a child becomes
an unprivileged user first, because PostgreSQL refuses to be root.
"""

import ctypes
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import pwd

KERNEL_WATCHES = sys.platform == "linux"
REFUSED = 77  # EX_NOPERM: the exit status of a child that could not become whom it should
LOG_BYTES = 10_000_000  # a longer log is begun anew at the next start


class ChildEnvironment:
    """The paths as a child sees them.

    What the account can't reach is mounted into the run directory, for that child alone.
    """

    def __init__(self, run: Path, account: "pwd.struct_passwd | None") -> None:
        self.run = run
        self.account = account
        self.mounts: list[tuple[bytes, bytes]] = []
        self.environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}

    def of(self, path: Path, root: Path, name: str) -> Path:
        """`path`, or where it is once all of `root` is mounted as `name`."""
        if self.account is None or _reaches(self.account, path):
            return path
        spot = self.run / name
        spot.mkdir(exist_ok=True)
        self.mounts.append((os.fsencode(root), os.fsencode(spot)))
        return spot / path.relative_to(root)

    def refusal(self) -> str:
        """What to say of a child that ended with `REFUSED`."""
        name = self.account.pw_name if self.account else ""
        if not self.mounts:
            return (
                f"PostgreSQL does not run as root, and root may not become {name} here:"
                " start as another user"
            )
        return (
            f"the user {name}, as which PostgreSQL runs when you are root, can't reach"
            f" {os.fsdecode(self.mounts[0][0])}: choose --data (and a checkout) below a directory"
            " open to others, or start as another user"
        )

    def entry(self, dies_by: signal.Signals) -> Callable[[], None]:
        """What a child does between fork and exec. All it needs is made ready here, before."""
        libc = ctypes.CDLL(None, use_errno=True)
        parent, account, mounts = os.getpid(), self.account, self.mounts
        new_mounts, private, bind, on_parent_death = 0x20000, 0x44000, 0x5000, 1

        def enter() -> None:
            try:
                # Private before anything else: a mount that shone through would outlive us.
                if mounts and (
                    libc.unshare(new_mounts)
                    or libc.mount(None, b"/", None, ctypes.c_ulong(private), None)
                    or any(libc.mount(*pair, None, ctypes.c_ulong(bind), None) for pair in mounts)
                ):
                    os._exit(REFUSED)
                if account:
                    os.setgroups([])
                    os.setgid(account.pw_gid)
                    os.setuid(account.pw_uid)
            except OSError:
                os._exit(REFUSED)
            if KERNEL_WATCHES:  # after the change of user, which would undo it
                libc.prctl(on_parent_death, ctypes.c_ulong(dies_by))
                if os.getppid() != parent:  # who died before we said so
                    os._exit(1)

        return enter


class Child:
    """A program in a session of its own, so that Ctrl-C in the terminal is not for it."""

    def __init__(
        self,
        command: Sequence[str],
        environment: ChildEnvironment,
        log: Path,
        *,
        dies_by: signal.Signals,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(log, flags, 0o600), "ab") as output:
            if os.fstat(output.fileno()).st_size > LOG_BYTES:
                output.truncate(0)
            self.log = log
            self.log_begun = os.fstat(output.fileno()).st_size
            self.process = subprocess.Popen(  # noqa: S603 - a program that we found
                command,
                cwd=environment.run,  # ours may be closed to the account
                env=environment.environment,
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=environment.entry(dies_by),  # noqa: PLW1509 - no thread of ours runs yet
            )
        self.watcher: subprocess.Popen[bytes] | None = None
        if not KERNEL_WATCHES:
            script = f"read -r _ || kill -{dies_by.name[3:]} {self.process.pid}"
            self.watcher = subprocess.Popen(  # noqa: S603 - our own words
                ["/bin/sh", "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Each signal in turn, with the seconds to wait for its effect; then SIGKILL."""
        for number, patience in steps:
            if self.process.poll() is None:
                self.process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        if self.watcher:
            self.watcher.communicate(b"\n")  # tells it that all is well
            self.watcher = None

    def complaint(self) -> str:
        """The last error it wrote to its log; a full disk, rather than what came of that."""
        with self.log.open("rb") as log:
            log.seek(self.log_begun)
            said = log.read().decode("utf-8", "replace").strip()
        errors = re.findall(r"(?:FATAL|PANIC|ERROR|error):.*", said)
        full = [error for error in errors if os.strerror(errno.ENOSPC) in error]
        return (full or errors or said.split("\n"))[-1] or "it says nothing"


def _reaches(account: "pwd.struct_passwd", path: Path) -> bool:
    """Whether every directory down to `path`, and it too, lets the account pass."""
    for place in (path, *path.parents):
        found = place.stat()
        shift = 6 if found.st_uid == account.pw_uid else 3 if found.st_gid == account.pw_gid else 0
        if not found.st_mode >> shift & 0o1:
            return False
    return True
