"""`python -m tests.forked POINT:N…`: workers of card fraud, each killed at its fault point, then one that goes on.

They are forks of a process that has imported everything, so that a dozen of them start in the time of one. Two are
at work at any time. Each end is told as `POINT:N CODE`, and the log is that of all of them.
"""

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Sequence

import services.worker.__main__  # noqa: F401 - for the forks
from infra.local.guard import PR_SET_PDEATHSIG
from streams.runtime.faults import VARIABLE

AT_ONCE = 2


def main(faults: Sequence[str]) -> None:
    """Start a worker whenever one has ended, until there is no fault left."""
    waiting, working = [*faults], dict[int, str]()
    while waiting or working:
        while waiting and len(working) < AT_ONCE:
            fault = waiting.pop(0)
            working[forked(fault)] = fault
        process, status = os.wait()
        print(working.pop(process), os.waitstatus_to_exitcode(status), flush=True)
    last = forked(None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the last, which has a checkpoint to make
    os.waitpid(last, 0)


def forked(fault: str | None) -> int:
    """Return the process id of a worker, which dies with this process."""
    if process := os.fork():
        return process
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if fault:
        os.environ[VARIABLE] = fault
    sys.argv = ["worker", "fraud"]
    runpy.run_module("services.worker", run_name="__main__", alter_sys=True)
    raise AssertionError("it ends by sys.exit")


if __name__ == "__main__":
    main(sys.argv[1:])
