"""Several `serve` processes on one set of listening sockets: started, watched, started again, and told to end together.

The sockets are bound here and handed down, so that a connection which nobody has accepted yet survives any worker.
Nothing is forked: each worker is this very command, run anew. What they must agree on they agree on as replicas do,
through the store: the lease of a connection, the claims of the background, the chains of the trail.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import structlog

from authproxy.cli.console import DONE, NOT_WELL, Stop
from authproxy.cli.worker import LONGEST, VARIABLE, Line, Place
from authproxy.core.address import Address
from authproxy.core.config import Config
from authproxy.faces.unix import bound
from authproxy.listening import BACKLOG
from authproxy.metrics import Snapshot, counted, merged

log = structlog.get_logger()

_ROUND: Final = 10.0  # seconds between two questions for numbers: what a killed worker may take with it
_ANSWER: Final = 1.0  # seconds that a page of metrics waits for one worker
_HANGS: Final = 60.0  # seconds without an answer after which a worker is killed
_STEADY: Final = 10.0  # seconds after which an end is no failure to start
_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_SPARE: Final = 30.0  # seconds beyond what draining may take by configuration


def supervise(args: argparse.Namespace, config: Config, listen: Address, control: Address) -> int:
    """Serve with `args.workers` processes until told to end. Raises Stop where it cannot begin."""
    if args.store.removeprefix("sqlite://").removeprefix("/") in ("", ":memory:"):
        raise Stop("a store in memory cannot be shared by workers: name a file, or postgresql://…")
    drain = config.timeouts.shutdown + config.refresh.lease + config.refresh.deadline + _SPARE
    with ExitStack() as stack:
        sockets = _bound(config, listen, control, stack)
        return asyncio.run(_Parent(args.workers, sockets, drain).run())


def _bound(
    config: Config, listen: Address, control: Address, stack: ExitStack
) -> dict[str, Sequence[socket.socket]]:
    named = [("--listen", listen), ("--control", control)]
    named += [
        (f"routes.{name}.listen", Address.parse(choice.listen))
        for name, choice in config.routes.items()
        if choice.listen is not None
    ]
    sockets: dict[str, Sequence[socket.socket]] = {}
    for name, address in named:
        try:
            sockets[str(address)] = [stack.enter_context(sock) for sock in _listening(address, stack)]
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Stop(f"{name} {address} cannot be listened on: {reason}", code=NOT_WELL) from None
    return sockets


def _listening(address: Address, stack: ExitStack) -> list[socket.socket]:
    """As asyncio would make them: one for each address that the name has."""
    if address.path is not None:
        made = [stack.enter_context(bound(address.path))]
    else:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        made = []
        for family, kind, proto, _, name in dict.fromkeys(found):
            sock = stack.enter_context(socket.socket(family, kind, proto))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(name)
            made.append(sock)
    for sock in made:
        sock.listen(BACKLOG)
        sock.setblocking(False)
    return made


class _Slot:
    """The place of one worker, and who is in it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.serving = asyncio.Event()
        self.reload = False  # as soon as it serves
        self.numbers: Snapshot = []
        self.heard_at = 0.0
        self.asked: dict[int, asyncio.Future[None]] = {}

    def say(self, **words: Any) -> None:
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(Line.words(words))

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class _Parent:
    """`drain` is what workers are given to end, in seconds."""

    def __init__(self, count: int, sockets: Mapping[str, Sequence[socket.socket]], drain: float) -> None:
        self._sockets = sockets
        self._drain = drain
        self._slots = [_Slot(number) for number in range(count)]
        self._stop = asyncio.Event()
        self._begun = False  # whether any worker has ever served
        self._first = True
        self._codes: list[int] = []
        self._past: Snapshot = []  # what those have counted who are gone
        self._numbers = itertools.count(1)

    async def run(self) -> int:
        """The exit code: that of the first worker where it could not begin, and the worst of all at the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        log.info("workers_starting", workers=len(self._slots))
        # The first makes what there is to be made: the store, its keys, its schema.
        keepers = [asyncio.create_task(self._keep(self._slots[0]))]
        stopped = asyncio.create_task(self._stop.wait())
        begun = asyncio.create_task(self._slots[0].serving.wait())
        await asyncio.wait({stopped, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if not self._stop.is_set():
            keepers += [asyncio.create_task(self._keep(slot)) for slot in self._slots[1:]]
        asking = asyncio.create_task(self._ask_on())
        await stopped
        asking.cancel()
        return await self._end(keepers)

    async def _end(self, keepers: list[asyncio.Task[None]]) -> int:
        log.info("stopping")
        for sockets in self._sockets.values():
            for sock in sockets:
                sock.close()  # with the last worker's: from then on connections are refused, and do not wait
        for slot in self._slots:
            slot.signal(signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self._drain)
        if late:
            for slot in self._slots:
                slot.signal(signal.SIGKILL)
            await asyncio.wait(late)
        code = max(self._codes, default=DONE)
        log.info("stopped", code=code)
        return code

    def _reload(self) -> None:
        for slot in self._slots:
            if slot.serving.is_set():
                slot.signal(signal.SIGHUP)
            else:
                slot.reload = True  # until it listens to it, the signal would end it

    async def _keep(self, slot: _Slot) -> None:
        """Somebody in this place, until told to end."""
        failures = 0
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            began = loop.time()
            try:
                code, served = await self._live(slot)
            except OSError as error:  # no process is to be had just now
                log.error("worker_not_started", worker=slot.number, reason=error.strerror)
                code, served = NOT_WELL, False
            if self._stop.is_set():
                # Whoever had not begun yet was ended by the signal itself.
                self._codes.append(DONE if code == 0 or not served else code if code > 0 else NOT_WELL)
                return
            if not self._begun:
                self._codes.append(code if code > 0 else NOT_WELL)
                self._stop.set()
                return
            failures = 0 if served and loop.time() - began >= _STEADY else failures + 1
            pause = 0.0 if failures <= 1 and served else min(_LONGEST_PAUSE, _PAUSE * 2 ** min(failures, 10))
            log.error("worker_ended", worker=slot.number, **_ending(code), again_in=pause)
            try:
                async with asyncio.timeout(pause):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def _live(self, slot: _Slot) -> tuple[int, bool]:
        """One life of a worker: its exit code (negative: the signal), and whether it ever served."""
        ours, theirs = socket.socketpair()
        with ExitStack() as stack:
            stack.callback(theirs.close)
            unused = stack.enter_context(ExitStack())
            unused.callback(ours.close)
            sockets = {name: [sock.fileno() for sock in socks] for name, socks in self._sockets.items()}
            place = Place(slot.number, self._first, theirs.fileno(), sockets)
            self._first = False
            slot.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                env={**os.environ, VARIABLE: place.said()},
                pass_fds=[theirs.fileno(), *itertools.chain(*sockets.values())],
            )
            unused.pop_all()
        if self._stop.is_set():  # told to end while it was being started
            slot.signal(signal.SIGTERM)
        reader, slot.writer = await asyncio.open_connection(sock=ours, limit=LONGEST)
        hearing = asyncio.create_task(self._hear(slot, reader))
        code = await slot.process.wait()
        await hearing
        slot.writer.close()
        served = slot.serving.is_set()
        slot.serving.clear()
        self._past = merged([self._past, counted(slot.numbers)])
        slot.process, slot.writer, slot.numbers = None, None, []
        return code, served

    async def _hear(self, slot: _Slot, reader: asyncio.StreamReader) -> None:
        """What a worker says, until its line is cut."""
        async for said in Line.heard(reader):
            slot.heard_at = asyncio.get_running_loop().time()
            if "serving" in said:
                self._serves(slot, said["serving"])
            elif "ask" in said:
                answering = asyncio.create_task(self._answer(slot))
                answering.add_done_callback(_told)
            else:
                slot.numbers = said["numbers"]
                asked = slot.asked.pop(said["told"], None)
                if asked is not None and not asked.done():
                    asked.set_result(None)

    def _serves(self, slot: _Slot, pid: int) -> None:
        log.info("worker_serving", worker=slot.number, pid=pid)
        self._begun = True
        slot.serving.set()
        if slot.reload:
            slot.reload = False
            slot.signal(signal.SIGHUP)

    # --- numbers

    async def _answer(self, asker: _Slot) -> None:
        """Tell one worker what the others have counted, and those who are gone."""
        others = [slot for slot in self._slots if slot is not asker and slot.serving.is_set()]
        found = await asyncio.gather(*(self._asked(slot) for slot in others))
        asker.say(others=[*filter(None, found), *filter(None, [self._past])])

    async def _asked(self, slot: _Slot) -> Snapshot:
        """Its numbers: those of just now, or else its last."""
        number = next(self._numbers)
        slot.asked[number] = answer = asyncio.get_running_loop().create_future()
        slot.say(tell=number)
        try:
            async with asyncio.timeout(_ANSWER):
                await answer
        except TimeoutError:
            log.warning("worker_silent", worker=slot.number)
        finally:
            slot.asked.pop(number, None)
        return slot.numbers

    async def _ask_on(self) -> None:
        """Keep what each has counted, should it be killed; and kill whom the question wakes no more."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_ROUND)
            serving = [slot for slot in self._slots if slot.serving.is_set()]
            await asyncio.gather(*(self._asked(slot) for slot in serving))
            for slot in serving:
                if slot.serving.is_set() and loop.time() - slot.heard_at > _HANGS:
                    log.error("worker_hangs", worker=slot.number, seconds=_HANGS)
                    slot.signal(signal.SIGKILL)


def _ending(code: int) -> dict[str, Any]:
    return {"code": code} if code >= 0 else {"signal": signal.Signals(-code).name}


def _told(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("numbers_not_told", error=type(error).__name__, exc_info=error)
