"""``mrkolla g5k submit``."""

from __future__ import annotations

import argparse

from mrkolla.base import arguments


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla g5k``."""
    parser.add_argument("action", choices=["submit"], help="hand the experiment to OAR as a job, or as a chain of jobs")
    parser.add_argument(
        "file", metavar="FILE", type=arguments.path, help="an experiment's script, or its file in configs/"
    )
    parser.add_argument("--walltime", required=True, metavar="H:MM:SS", help="how long each job may take")
    parser.add_argument(
        "--chain", type=int, default=1, metavar="N", help="N jobs one after the other, until all is done"
    )
    arguments.testbed_option(parser)
    arguments.results_option(parser)
    parser.add_argument("--name", metavar="NAME", help="the jobs' name (default: testbed.job_name)")
    parser.add_argument("--resource", "-l", metavar="REQUEST", help="oarsub -l, without walltime (default: derived)")
    parser.add_argument("--property", "-p", metavar="SQL", help="oarsub -p, such as \"cluster='gros'\"")


def g5k(args: argparse.Namespace) -> int:
    """Submit an experiment as a batch job, or as a chain of them."""
    from mrkolla.batch import submit

    script, file = submit.parts(args.file)
    wanted = submit.Submission(
        **{"script": script, "file": file, "walltime": args.walltime, "chain": args.chain, "testbed": args.testbed},
        **{"results": args.results, "name": args.name, "resources": args.resource, "properties": args.property},
    )
    for number in submit.submit(wanted):
        print(f"job {number}")
    print(f"output:   {args.results / 'jobs'}\nlook:     oarstat -u\nend:      oardel JOB")
    return 0
