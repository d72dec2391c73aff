"""Start and stop the embedded programs as child processes.

A child never outlives this process. On Linux the kernel signals the child when the thread that
started it ends. On other systems a helper shell waits for the end of a pipe and then signals the
child. As root, a child changes to an unprivileged user first: PostgreSQL refuses to run as root.
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
REFUSED = 77  # EX_NOPERM: exit status of a child that could not change its user or mounts
LOG_BYTES = 10_000_000  # a longer log is truncated at the next start


class ChildEnvironment:
    """Environment variables and paths of a child.

    Directories that the account can't reach are bind-mounted into the run directory, in a mount
    namespace of the child.
    """

    def __init__(self, run: Path, account: "pwd.struct_passwd | None") -> None:
        self.run = run
        self.account = account
        self.mounts: list[tuple[bytes, bytes]] = []
        self.environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}

    def of(self, path: Path, root: Path, name: str) -> Path:
        """Return `path`, or its place below the mount `name` of `root`."""
        if self.account is None or _reaches(self.account, path):
            return path
        spot = self.run / name
        spot.mkdir(exist_ok=True)
        self.mounts.append((os.fsencode(root), os.fsencode(spot)))
        return spot / path.relative_to(root)

    def refusal(self) -> str:
        """Error message for a child that exited with `REFUSED`."""
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
        """Return the function that a child runs between fork and exec, with its data prepared."""
        libc = ctypes.CDLL(None, use_errno=True)
        parent, account, mounts = os.getpid(), self.account, self.mounts
        new_mounts, private, bind, on_parent_death = 0x20000, 0x44000, 0x5000, 1

        def enter() -> None:
            try:
                # Make mounts private first: a mount visible outside would outlive this process.
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
            if KERNEL_WATCHES:  # after setuid, which clears it
                libc.prctl(on_parent_death, ctypes.c_ulong(dies_by))
                if os.getppid() != parent:  # the parent died before the prctl call
                    os._exit(1)

        return enter


class Child:
    """A program in its own session, so that Ctrl-C in the terminal does not reach it."""

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
            self.process = subprocess.Popen(  # noqa: S603 - a path that find_postgres or find_redis returned
                command,
                cwd=environment.run,  # the account may have no access to our directory
                env=environment.environment,
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=environment.entry(dies_by),  # noqa: PLW1509 - no other thread runs yet
            )
        self.watcher: subprocess.Popen[bytes] | None = None
        if not KERNEL_WATCHES:
            script = f"read -r _ || kill -{dies_by.name[3:]} {self.process.pid}"
            self.watcher = subprocess.Popen(  # noqa: S603 - a constant script with a number
                ["/bin/sh", "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal and wait its number of seconds; send SIGKILL at the end."""
        for number, seconds in steps:
            if self.process.poll() is None:
                self.process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(seconds)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        if self.watcher:
            self.watcher.communicate(b"\n")  # a line ends the helper without a signal
            self.watcher = None

    def complaint(self) -> str:
        """Return the last error in its log, or "no space left" if the log has that."""
        with self.log.open("rb") as log:
            log.seek(self.log_begun)
            text = log.read().decode("utf-8", "replace").strip()
        errors = re.findall(r"(?:FATAL|PANIC|ERROR|error):.*", text)
        full = [error for error in errors if os.strerror(errno.ENOSPC) in error]
        if full:
            return f"{full[-1]}: free space on the disk of {self.log.parent}"
        return (errors or text.split("\n"))[-1] or "its log is empty"


def _reaches(account: "pwd.struct_passwd", path: Path) -> bool:
    """Return whether the account may traverse every directory down to `path`, and `path` too."""
    for place in (path, *path.parents):
        found = place.stat()
        shift = 6 if found.st_uid == account.pw_uid else 3 if found.st_gid == account.pw_gid else 0
        if not found.st_mode >> shift & 0o1:
            return False
    return True
