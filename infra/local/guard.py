"""`guard.py PARENT COMMAND…`: become COMMAND, to be killed when the process PARENT dies.

Linux only; elsewhere the command just runs. It is a program of its own, because code between fork and exec is not
safe in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the arguments are our own, no shell is wanted


if __name__ == "__main__":
    main()
