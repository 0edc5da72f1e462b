"""Checks before the stack starts or changes anything; each failure is one sentence."""

import errno
import platform
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from server.stack.errors import StackError

GIB = 1024**3
INSTALL_BYTES = 4 * GIB
"""Free disk space needed for an installation: all environments are about 2 GB, plus the downloads."""
RUN_BYTES = GIB // 5


def check_platform() -> None:
    """Raise StackError if the services' wheels have no programs for this machine."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise StackError(
            f"`chat up` runs on Linux x86_64, and this is {system} {machine}; use `chat serve` with services elsewhere"
        )
    if platform.libc_ver()[0] != "glibc":
        raise StackError(
            "`chat up` needs a Linux with glibc (Debian, Ubuntu, Fedora …); this one has another C library"
        )
    if not (3, 11) <= sys.version_info < (3, 14):
        raise StackError(f"`chat up` needs Python 3.11, 3.12 or 3.13, and this is {platform.python_version()}")


def check_environment(environ: Mapping[str, str]) -> None:
    """Raise StackError in production: the stack stores its keys in files and may use the demo model."""
    if environ.get("ENVIRONMENT", "").strip().lower() == "production":
        raise StackError(
            "`chat up` is for development, and ENVIRONMENT is production; use `chat serve` with services of their own"
        )


def check_port(host: str, port: int) -> None:
    """Raise StackError if the API server cannot listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StackError(f"port {port} is in use by another program; choose one with --port") from error
            raise StackError(f"port {port} cannot be used: {error.strerror}; choose another with --port") from error


def check_disk(root: Path, installed: bool) -> None:
    """Raise StackError if there is too little free disk space for the installation, or for a run."""
    needed, free = (RUN_BYTES if installed else INSTALL_BYTES), shutil.disk_usage(root).free
    if free < needed:
        raise StackError(
            f"{root} has {free / GIB:.1f} GB of free disk and {needed / GIB:.1f} GB are needed; "
            "free some space or name another --data-dir"
        )
