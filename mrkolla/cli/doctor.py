"""What this machine, or a testbed's hosts, have and lack, and the command that mends each lack."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mrkolla.base import arguments
from mrkolla.base.errors import LackError
from mrkolla.base.plugins import TESTBEDS, TOOLS, Finding
from mrkolla.cli.common import Listing, format_option, show

_SIGN = {True: "ok", False: "LACKS", None: "note"}
_COLUMNS = ["state", "what", "seen", "to mend it"]


def look() -> list[Finding]:
    """Look at this machine for the testbed ``local``, and for the tools that need something of it."""
    return [*TESTBEDS.needs("local"), *(finding for name, _ in TOOLS.items() for finding in TOOLS.needs(name))]


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla doctor``."""
    parser.add_argument(
        "--testbed", type=arguments.path, metavar="FILE", help="look at the hosts of this testbed file instead"
    )
    format_option(parser)


def verb(args: argparse.Namespace) -> int:
    """Say what this machine, or a testbed's hosts, lack."""
    if args.testbed:
        return _doctor_of_hosts(args)
    findings = look()
    show(args, machine=_of_machine("This machine, for the testbed local", findings))
    _refuse(findings)
    return 0


def _of_machine(title: str, findings: Sequence[Finding]) -> Listing:
    return Listing(title, _COLUMNS, [[_SIGN[f.ok], f.what, f.seen, f.mend if f.ok is False else ""] for f in findings])


def _refuse(findings: Sequence[Finding]) -> None:
    if lacking := [f.what for f in findings if f.ok is False]:
        raise LackError(f"this machine lacks: {', '.join(lacking)} (the table says what to do)")


def _doctor_of_hosts(args: argparse.Namespace) -> int:
    from mrkolla import config, providers

    section = config.load_testbed(args.testbed)
    testbed = providers.testbed(section.kind)
    needs = TESTBEDS.needs(section.kind)
    listings = {"machine": _of_machine(f"This machine, for the testbed {testbed.name}", needs)} if needs else {}
    findings = []
    if testbed.can("doctor") or not needs:
        findings = testbed.doctor(section)
        rows = [
            [finding.host, _SIGN[finding.ok], finding.what, finding.seen, finding.mend if finding.ok is False else ""]
            for finding in findings
        ]
        listings["hosts"] = Listing(f"The hosts of {args.testbed}", ["host", *_COLUMNS], rows)
    show(args, **listings)
    _refuse(needs)
    lacking = sorted({f"{finding.host} ({finding.what})" for finding in findings if finding.ok is False})
    if lacking:
        raise LackError(f"hosts lack something: {', '.join(lacking)} (the table says what to do)")
    return 0
