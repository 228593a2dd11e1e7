"""Programs that the tests start get ports that nobody else comes upon meanwhile."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.ports import BLOCK, LOWEST, ephemeral, free_port

ROOT = Path(__file__).parents[2]


def test_two_runs_never_give_away_the_same_port() -> None:
    count = 2 * BLOCK  # more than one block of each
    code = f"from tests.kit.ports import free_port\nfor _ in range({count}): print(free_port())\ninput()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        theirs = {int(other.stdout.readline()) for _ in range(count)}
        ours = {free_port() for _ in range(count)}
        other.communicate(b"\n")
    assert len(ours) == len(theirs) == count
    assert not ours & theirs


@pytest.mark.skipif(ephemeral() < 15_000, reason="this kernel gives away nearly all ports that there are")
def test_the_kernel_gives_none_of_them_away() -> None:
    assert LOWEST < free_port() < ephemeral()


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    inside = (port for port in iter(free_port, None) if (port + 1 - LOWEST) % BLOCK)
    with socket.socket() as taken:
        following = next(inside) + 1
        taken.bind(("127.0.0.1", following))
        assert following not in {free_port() for _ in range(BLOCK)}
