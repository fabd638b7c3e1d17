"""A rollout: one bundle onto all devices of a fleet, canaries first, and everything back at the first failure.

Each device gets exactly what `jetmask deploy` does for one. When one fails, no other is started; those under way stop
before their switch, or finish it; then every device that this rollout switched goes back to the bundle and to the
service that it had. A rollout that was cut off goes on when it is started again: where it was, forwards or backwards.
"""

import contextlib
import json
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from jetson.errors import JetmaskError
from pipeline.deploy import journal as journal_of
from pipeline.deploy import options
from pipeline.deploy.board import Board
from pipeline.deploy.deployment import Deployment, Parcel
from pipeline.deploy.fleet import Fleet, Host
from pipeline.deploy.installed import Installed
from pipeline.deploy.journal import Journal
from pipeline.deploy.ssh import Remote, Unreachable

FAILED, UNTOUCHED, SKIPPED, KEPT = "failed", "untouched", "skipped", "kept"
_ASK_S = 2.0


class Settings(NamedTuple):
    """How a rollout goes: `canaries` devices first, watched for `watch_s`; `at_once` devices at a time."""

    canaries: int = 1
    watch_s: float = 30.0
    at_once: int = 4
    keep: bool = False
    skip_unreachable: bool = False


class _Stopped(Exception):
    """This device is not to be switched: another one has failed."""


class Rollout:
    """One run over `fleet`. `board` shows it; `errors` holds {device: what went wrong}, the first failure first."""

    def __init__(self, fleet: Fleet, journal: Journal, board: Board, settings: Settings) -> None:
        self.fleet, self.journal, self.board, self.settings = fleet, journal, board, settings
        self.errors: dict[str, Exception] = {}
        self._skipped: dict[str, Exception] = {}
        self.interrupted = False
        self._stop = threading.Event()

    def forward(self, contents: Parcel) -> bool:
        """Bring the parcel to every device; whether all is well. The caller has begun the journal."""
        left = list(self.fleet.hosts)
        canaries: list[Host] = []
        while left and len(canaries) < self.settings.canaries and not self._stop.is_set():
            batch = [left.pop(0) for _ in range(min(len(left), self.settings.canaries - len(canaries)))]
            self._all(batch, lambda host: self._deploy(host, contents))
            canaries += [host for host in batch if self.board.state(host.name) != SKIPPED]
        if canaries and not self._stop.is_set():
            self._all(canaries, self._watch)
        self._all(left, lambda host: self._deploy(host, contents))
        if len(self._skipped) == len(self.fleet.hosts):  # this machine has no network: nobody calls that a success
            self.errors.update(self._skipped)
        if self.interrupted:
            return False
        if not self.errors:
            self.journal.turn(journal_of.DONE)
            return True
        if self.settings.keep:
            self.journal.turn(journal_of.FAILED)
        else:
            self.back()
        return False

    def back(self) -> None:
        """Every device that the journal's rollout switched goes back to what it ran before."""
        self.journal.turn(journal_of.UNDOING)
        self._stop.clear()
        touched = self.journal.touched()
        self._all([host for host in self.fleet.hosts if host.name in touched], self._undo)
        if not self.interrupted:
            self.journal.turn(journal_of.UNDONE)

    # ------------------------------------------------------------------------------------------------ several at once

    def _all(self, hosts: Sequence[Host], work: Callable[[Host], None]) -> None:
        """`work` for each host, some at once; it ends when all have ended. Ctrl-C lets those under way end."""
        if not hosts:
            return
        with ThreadPoolExecutor(self.settings.at_once) as pool:
            left: set[Future[None]] = {pool.submit(self._one, host, work) for host in hosts}
            while left:
                try:
                    left = wait(left, 0.2).not_done
                    self.board.draw()
                except KeyboardInterrupt:
                    self.interrupted = True
                    self._stop.set()
                    self.board.say(
                        "interrupted: deployments in progress stop before they activate a bundle, or complete it"
                    )
        self.board.draw()

    def _one(self, host: Host, work: Callable[[Host], None]) -> None:
        if self._stop.is_set():
            if not self.board.ended(host.name):
                self.board.end(host.name, UNTOUCHED)
            return
        try:
            work(host)
        except _Stopped:
            self.board.end(host.name, UNTOUCHED)
        except Exception as error:  # of one device; the others are brought to their end first
            if self.settings.skip_unreachable and isinstance(error, Unreachable) and not self.journal.host(host.name):
                self._skipped[host.name] = error
                self.board.end(host.name, SKIPPED, _first_line(error))
                return
            self.errors.setdefault(host.name, error)
            if self.journal.state == journal_of.GOING:  # on the way back, one does not keep the others
                self._stop.set()
            self.board.end(host.name, FAILED, _first_line(error))

    # ------------------------------------------------------------------------------------------------------- one device

    def _remote(self, host: Host) -> Remote:
        return Remote(
            host.name,
            options.words(host.settings.ssh, "ssh"),
            host.settings.retries,
            own_session=True,
            say=lambda text: self.board.tell(host.name, text),
        )

    def _deploy(self, host: Host, contents: Parcel) -> None:
        before = self.journal.host(host.name)
        self.board.begin(host.name, "connecting")
        with self._remote(host) as remote:
            if before.get("phase") in journal_of.TOUCHED and self._stands(
                Installed(remote, host.settings), contents.code_id
            ):
                self._updated(host)
                return

            def on_stage(number: int, count: int, title: str) -> None:
                if self._stop.is_set():
                    raise _Stopped
                self.board.begin(host.name, f"[{number}/{count}] {title}")
                if number == count:
                    self._remember(host, deployment)

            deployment = Deployment(
                remote, host.settings, contents, lambda text: self.board.tell(host.name, text), on_stage, lazy=True
            )
            switched = deployment.run()["switched"]
            for text in deployment.warnings:
                self.board.say(f"{host.name}: {text}")
            if switched or before.get("phase") in journal_of.TOUCHED:
                self._updated(host)
            else:
                self.journal.note(host.name, phase=journal_of.SAME)
                self.board.end(host.name, journal_of.SAME)

    def _updated(self, host: Host) -> None:
        self.journal.note(host.name, phase=journal_of.UPDATED)
        self.board.end(host.name, journal_of.UPDATED)

    def _stands(self, installed: Installed, code_id: str) -> bool:
        """Whether a device that was switched before the rollout was cut off has it all, and is healthy."""
        try:
            installed.require()
            found = self._settled(installed)
            return (
                found["current"] == self.journal.digest
                and found["service"] is not None
                and (found["service"]["code"] == code_id and bool(installed.health(found["service"])))
            )
        except Unreachable:
            raise
        except JetmaskError:
            return False

    @staticmethod
    def _settled(installed: Installed) -> dict[str, Any]:
        """A device's status once no switch is under way there."""
        end = time.monotonic() + installed.settings.start + installed.settings.watch + 90
        while True:
            found = installed.status()
            # A trial whose switch was killed there is undone by the next switch; it is not waited for for ever.
            if found["trial"] is None or time.monotonic() > end:
                return found
            time.sleep(_ASK_S)

    def _remember(self, host: Host, deployment: Deployment) -> None:
        """Before a switch: what the device runs, so that it can come back to it. Kept once in a rollout."""
        known = self.journal.host(host.name)
        if not known:
            found = self._settled(deployment.installed)
            if found["trial"] is not None:
                # A switch that was killed there: what counts is what it would go back to, and so will the next one.
                deployment.remote.run(deployment.installed.line(["--recover", "--state", host.settings.state]))
                found, deployment.lazy = deployment.installed.status(), False
            kept = found["current"] is not None and found["service"] is not None
            if kept:
                # The way it was started stays there: a source may hold a password.
                name = f"incoming/{self._kept_name()}"
                deployment.remote.run(
                    f"cd {shlex.quote(host.settings.state)} && mkdir -p incoming && (test -e {name} || {{ "
                    f"rm -f incoming/before-*.json; cp service.json {name}.part && mv {name}.part {name}; }})"
                )
            known = {"was": found["current"], "service": kept}
        self.journal.note(host.name, **{**known, "phase": journal_of.SWITCHING})

    def _kept_name(self) -> str:
        return f"before-{self.journal.rollout}.json"

    def _watch(self, host: Host) -> None:
        """A canary must stay healthy for a while before the others follow."""
        self.board.begin(host.name, f"watched for {self.settings.watch_s:g} s")
        with self._remote(host) as remote:
            installed = Installed(remote, host.settings)
            end, missed = time.monotonic() + self.settings.watch_s, 0
            while True:
                found = installed.status()
                well = found["service"] is None or bool(installed.health(found["service"]))
                missed = 0 if well else missed + 1
                if found["current"] != self.journal.digest or missed >= 3:
                    raise JetmaskError(
                        "the canary did not stay healthy" if missed else "the canary runs another bundle now",
                        host.name,
                        None,
                        f"jetmask deploy --logs {host.name}",
                    )
                if self._stop.is_set() or (time.monotonic() >= end and not missed):
                    break
                self._stop.wait(min(_ASK_S, max(0.1, end - time.monotonic())))
        facts = self.journal.host(host.name)
        self.board.end(host.name, facts.get("phase", journal_of.UPDATED))

    def _undo(self, host: Host) -> None:
        facts = self.journal.host(host.name)
        failed = host.name in self.errors
        why = _first_line(self.errors[host.name]) if failed else ""
        self.board.begin(host.name, "rolling back")
        try:
            with self._remote(host) as remote:
                installed = Installed(remote, host.settings)
                found = self._settled(installed)
                path = f"{host.settings.state}/incoming/{self._kept_name()}" if facts.get("service") else None
                if not self._is_back(found, facts, remote, path):
                    if facts["was"] is None:
                        self.journal.note(host.name, phase=KEPT)
                        self.board.end(host.name, KEPT, "nothing was installed before, so the new bundle stays")
                        return
                    installed.switch(facts["was"], path, lambda text: self.board.tell(host.name, text))
                    failed = False
        except Exception as error:
            self.journal.note(host.name, phase=journal_of.STUCK)
            self.errors.setdefault(host.name, error)
            self.board.end(host.name, journal_of.STUCK, _first_line(error))
            return
        result = FAILED if failed else journal_of.BACK
        self.journal.note(host.name, phase=result)
        self.board.end(host.name, result, why)

    def _is_back(self, found: dict[str, Any], facts: dict[str, Any], remote: Remote, path: str | None) -> bool:
        """Whether a device runs what it ran before the rollout: it went back by itself, or was never switched."""
        if found["current"] != facts["was"] or found["trial"] is not None or Installed.half_back(found):
            return False
        if path is None or found["current"] != self.journal.digest:
            return True
        with contextlib.suppress(ValueError):
            return bool(json.loads(remote.fetch(path)) == found["service"])
        return False


def _first_line(error: Exception) -> str:
    text = str(error.what) if isinstance(error, JetmaskError) else f"{type(error).__name__}: {error}"
    return (text.splitlines() or [""])[0]
