"""``mrkolla g5k submit``."""

from __future__ import annotations

import argparse

from mrkolla.base import arguments


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla g5k``."""
    parser.add_argument("action", choices=["submit"], help="hand the experiment to OAR as a job, an array or a chain")
    parser.add_argument(
        "files",
        metavar="FILE",
        type=arguments.path,
        nargs="+",
        help="an experiment's script, or its file in configs/; of an array: the script and its files, a cloud each",
    )
    parser.add_argument("--walltime", required=True, metavar="H:MM:SS", help="how long each job may take")
    parser.add_argument(
        "--array",
        type=int,
        nargs="?",
        const=1,
        metavar="N",
        help="a job array: N clouds of each file (default: 1), a job each, with name, seed and run folder of its own",
    )
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="a cloud of the array for each value of a key, such as keystone.topology=central,replica; may be repeated",
    )
    parser.add_argument(
        "--chain", type=int, default=1, metavar="N", help="N jobs one after the other, until all is done"
    )
    arguments.testbed_option(parser)
    arguments.results_option(parser)
    parser.add_argument("--name", metavar="NAME", help="the jobs' name (default: testbed.job_name)")
    parser.add_argument("--resource", "-l", metavar="REQUEST", help="oarsub -l, without walltime (default: derived)")
    parser.add_argument("--property", "-p", metavar="SQL", help="oarsub -p, such as \"cluster='gros'\"")


def g5k(args: argparse.Namespace) -> int:
    """Submit an experiment as a batch job, as an array of clouds, or as a chain of either."""
    from mrkolla.batch import array, submit

    script, files = submit.parts(args.files)
    submission = submit.Submission(
        **{"script": script, "files": files, "walltime": args.walltime, "chain": args.chain, "testbed": args.testbed},
        **{"results": args.results, "name": args.name, "resources": args.resource, "properties": args.property},
        **{"copies": args.array, "vary": array.read_vary(args.vary)},
    )
    links = submit.submit(submission)
    for link in links:
        if submission.is_array:
            print(f"array {next(iter(link))}")
        for number, cloud in link.items():
            print(f"job {number}: {cloud}" if submission.is_array else f"job {number}")
    print(f"output:   {args.results / 'jobs'}")
    if submission.is_array:
        print("look:     oarstat --array ARRAY\nend:      oardel --array ARRAY")
        print(f"join:     mrkolla report {' '.join(links[0].values())}")
    else:
        print("look:     oarstat -u\nend:      oardel JOB")
    return 0
