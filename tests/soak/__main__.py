"""python -m tests.soak --processes 8 --seconds 600 --store sqlite|postgres --server sandbox|django

Ends with 1 on any double spend, and on any loss that nothing explains.
"""

from __future__ import annotations

import argparse
import sys

from tests.soak.soak import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument(
        "--server", choices=["sandbox", "django"], default="sandbox", help="who gives the tokens"
    )
    parser.add_argument("--connections", type=int, default=24)
    parser.add_argument("--callers", type=int, default=6, help="in each process")
    parser.add_argument("--kill-every", type=float, default=2.0, help="seconds, on average")
    parser.add_argument("--seed", type=int, default=0)
    report = run(Plan(**vars(parser.parse_args())))
    print(report)
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
