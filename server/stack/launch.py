"""Starts a service: drops root's rights, ties the process to `chat up` by a death signal, then executes the service.

A separate program, run as `python -I -S launch.py …` with the standard library only, because these steps must happen
after the fork, in this order, in a process without threads: changing user or namespace clears the death signal."""

import argparse
import ctypes
import os
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000


def enter_namespace(uid: int, gid: int) -> None:
    """Enter a user namespace in which this process has `uid` and `gid`; outside they do not change. Raises OSError."""
    real_uid, real_gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are not allowed here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{gid} {real_gid} 1")
    Path("/proc/self/uid_map").write_text(f"{uid} {real_uid} 1")


def drop_to(uid: int, gid: int) -> None:
    """Drop root's rights permanently."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with(parent: int, signal_number: int) -> None:
    """Let the kernel signal this process when its parent process `parent` dies. Exits at once if it already has."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        sys.exit(1)


def main() -> None:
    """`launch.py --parent PID --death-signal N [--uid U --gid G [--namespace]] -- program argument…`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death-signal", type=int, required=True)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--namespace", action="store_true")
    parser.add_argument("argv", nargs="+")
    options = parser.parse_args()
    if options.namespace:
        enter_namespace(options.uid, options.gid)
    elif options.uid is not None:
        drop_to(options.uid, options.gid)
    die_with(options.parent, options.death_signal)
    os.execvpe(options.argv[0], options.argv, os.environ)  # noqa: S606 - becoming the service is the purpose


if __name__ == "__main__":
    main()
