"""What holds one fault at the place where it is done, and takes it back when nobody asks for it any more.

Sent over standard input to a Python at that place (this machine, or a host by SSH). Stand-alone: standard library,
Python 3.8 or later. Its parameters:

    {"begin": [COMMAND, ...], "end": [COMMAND, ...], "for_s": S or null, "lease_s": S, "cycle": [DOWN_S, UP_S] or null}

COMMANDs are lists of words; those of ``end`` may be run at any time, and twice. It prints {"begun": TIME, "onset":
TIME} once the others have run, the first from the onset on, and at the end {"ended": TIME, "why": "time" (``for_s``
is over), "asked", "left" (its input ended) or "lease" (nobody wrote a line for ``lease_s``), "remains": [what could
not be taken back, ...]}; {"failed": WHY} when it could not begin. Any line on its standard input renews the lease;
the line "end" ends the fault. With a ``cycle`` the fault is there for DOWN_S, away for UP_S, and so on.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time

PATIENCE_S = 60.0


def say(**line):
    """Print a JSON line. That nobody reads it any more is no error."""
    try:
        os.write(1, json.dumps(line).encode() + b"\n")
    except OSError:
        return


def run(commands):
    """Run ``commands`` in their order; returns what went wrong first, or None."""
    for argv in commands:
        try:
            process = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
                env=dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"),
            )
        except (OSError, subprocess.TimeoutExpired) as failed:
            return f"'{argv[0]}': {failed}"
        if process.returncode != 0:
            lines = (process.stderr.strip() or process.stdout.strip() or f"status {process.returncode}").splitlines()
            return f"'{' '.join(argv)[:120]}' failed: {lines[-1]}"
    return None


def take_back(commands):
    """Run each of ``commands``, whatever the others do, until it works; returns what does not work in the end."""
    until, rest = time.monotonic() + PATIENCE_S, list(commands)
    while rest:
        tried = [(argv, run([argv])) for argv in rest]
        rest = [argv for argv, wrong in tried if wrong]
        if rest and time.monotonic() > until:
            return [wrong for _, wrong in tried if wrong]
        if rest:
            time.sleep(1)
    return []


class Told(Exception):
    """A signal asked for the end."""


def told(number, frame):
    raise Told


def main(parameters):
    """Hold the fault; returns the exit status, 0 when it was there and nothing of it is left."""
    # Whoever started this may have it in its group, and be interrupted: it ends by its standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, told)
    why = "asked"
    try:
        onset = time.time()
        failed = run(parameters["begin"])
        if failed:
            take_back(parameters["end"])
            say(failed=failed)
            return 1
        say(begun=time.time(), onset=onset)
        why = hold(parameters)
    except Told:
        why = "asked"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    remains = take_back(parameters["end"])
    say(ended=time.time(), why=why, remains=remains)
    return 1 if remains else 0


def hold(parameters):
    """Wait for the end, in a cycle if there is one; returns why it came."""
    begin = time.monotonic()
    end = begin + parameters["for_s"] if parameters["for_s"] is not None else float("inf")
    lease, cycle = begin + parameters["lease_s"], parameters.get("cycle")
    turn, in_force = begin + cycle[0] if cycle else float("inf"), True
    while True:
        now = time.monotonic()
        if now >= end:
            return "time"
        if now >= lease:
            return "lease"
        if now >= turn:
            failed = run(parameters["end"] if in_force else parameters["begin"])
            if failed:
                say(warning=failed)
            in_force = not in_force
            turn += cycle[0] if in_force else cycle[1]
            continue
        if not select.select([0], [], [], max(0.0, min(end, lease, turn) - now))[0]:
            continue
        data = os.read(0, 65536)
        if not data:
            return "left"
        if b"end\n" in data:
            return "asked"
        lease = time.monotonic() + parameters["lease_s"]


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
