"""`jetmask deploy --fleet fleet.yaml`: a rollout over many devices, what they run, and the way back."""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from jetson import cli, files
from jetson.bundle import manifest
from jetson.cli import table
from jetson.errors import JetmaskError, UsageError
from jetson.install import installer as install
from pipeline.deploy import fleet as fleet_of
from pipeline.deploy import fleet_page
from pipeline.deploy import journal as journal_of
from pipeline.deploy import options as deploy_options
from pipeline.deploy import rollout as rollout_of
from pipeline.deploy.board import Board, text_table
from pipeline.deploy.deployment import Deployment, parcel, service_kind
from pipeline.deploy.fleet import Fleet, Host
from pipeline.deploy.installed import Installed
from pipeline.deploy.journal import Journal
from pipeline.deploy.rollout import Rollout
from pipeline.deploy.settings import Settings
from pipeline.deploy.ssh import Remote, Unreachable

Options = Callable[[argparse.ArgumentParser], None]


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of a fleet."""
    add = parser.add_argument_group("many devices").add_argument
    add(
        "--fleet",
        metavar="FILE.yaml",
        help="deploy the bundle to every device in this file; with --status query them, with "
        "--rollback undo the last rollout",
    )
    add(
        "--canary", type=int, default=1, metavar="N", help="deploy to the first N devices before the others (default 1)"
    )
    add(
        "--canary-watch",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds that they must stay healthy before the others follow (default 30)",
    )
    add("--at-once", type=int, default=4, metavar="N", help="how many devices at a time (default 4)")
    add(
        "--keep",
        action="store_true",
        help="after a failure, leave the new bundle on the devices that have activated it",
    )
    add(
        "--skip-unreachable",
        action="store_true",
        help="skip devices that cannot be reached, as long as one can",
    )
    add("--html", metavar="FILE", help="with --status: write what is told as a page, too, with cameras and disk")
    add("--every", type=float, metavar="S", help="with --html: ask and write again every S seconds, until Ctrl-C")


@dataclass(frozen=True)
class FleetSettings:
    """What is asked of a fleet. `path`: its file; `words`: what stands on the command line beside options, the bundle
    where the file names none; `canary_watch`: seconds; `html`: where the state is
    written as a page, `every` so many seconds again; `each`: what holds for every device that does not say otherwise.
    """

    path: str
    words: tuple[str, ...] = ()
    status: bool = False
    rollback: bool = False
    dry_run: bool = False
    json: bool = False
    canary: int = 1
    canary_watch: float = 30.0
    at_once: int = 4
    keep: bool = False
    skip_unreachable: bool = False
    html: str | None = None
    every: float | None = None
    each: Settings = field(default_factory=Settings)


def run(settings: FleetSettings, options_of_deploy: Options) -> int:
    """Roll out, ask, or go back."""
    if settings.canary < 0 or settings.at_once < 1 or settings.canary_watch < 0:
        raise UsageError("--canary and --canary-watch are from 0, --at-once from 1", "--fleet")
    if settings.dry_run and (settings.status or settings.rollback):
        raise UsageError("--dry-run shows the commands of a deployment only", "--status, --rollback")
    if (settings.html and not settings.status) or (settings.every is not None and not settings.html):
        raise UsageError("--html goes with --status, and --every with --html", "--html, --every")
    if settings.every is not None and not 5 <= settings.every <= 86400:
        raise UsageError(f"not a time between two rounds: {settings.every:g}", "--every", "5 to 86400 seconds")
    fleet = fleet_of.read(settings.path, options_of_deploy, settings.each)
    for host in fleet.hosts:  # nothing begins while one of them cannot be right
        try:
            deploy_options.check(host.settings, sends=not (settings.dry_run or settings.status or settings.rollback))
        except JetmaskError as error:
            raise type(error)(
                error.what,
                f"{fleet.path}, {host.name}" + (f": {error.where}" if error.where else ""),
                error.expected,
                error.remedy,
            ) from error
    if settings.dry_run:
        return _show(fleet, settings)
    if settings.status:
        _no_words(settings)
        while settings.every:
            began = time.monotonic()
            _status(fleet, settings)
            time.sleep(max(0.0, settings.every - (time.monotonic() - began)))
        return _status(fleet, settings)
    with files.lock(journal_of.path_of(fleet.path) + ".lock", wait=False):
        journal = Journal(fleet.path)
        if settings.rollback:
            _no_words(settings)
            return _go_back(fleet, journal, settings)
        return _go(fleet, journal, settings)


def _no_words(settings: FleetSettings) -> None:
    if settings.words:
        raise UsageError(
            "the fleet file names the devices",
            " ".join(settings.words),
            None,
            "omit it; --status and --rollback need no bundle either",
        )


def _bundle(fleet: Fleet, settings: FleetSettings) -> str:
    if len(settings.words) > 1:
        raise UsageError(
            "with --fleet the file names the devices",
            " ".join(settings.words),
            "BUNDLE alone",
            f"jetmask deploy BUNDLE --fleet {fleet.path}",
        )
    if not settings.words and not fleet.bundle:
        raise UsageError(
            "no bundle given",
            fleet.path,
            "BUNDLE on the command line, or the file's key `bundle`",
            f"jetmask deploy BUNDLE --fleet {fleet.path}",
        )
    return settings.words[0] if settings.words else str(fleet.bundle)


def _show(fleet: Fleet, settings: FleetSettings) -> int:
    with parcel(_bundle(fleet, settings)) as contents:
        for host in fleet.hosts:
            print(f"# {host.name}")
            with Remote(host.name, deploy_options.words(host.settings.ssh, "ssh"), 0, dry_run=True) as remote:
                Deployment(remote, host.settings, contents).run()
    return 0


def _go(fleet: Fleet, journal: Journal, settings: FleetSettings) -> int:
    with parcel(_bundle(fleet, settings)) as contents:
        digest = install.check(contents.bundle, settings.each.digest)
        known = manifest.load(contents.bundle)
        for host in fleet.hosts:
            try:
                service_kind(host.settings)
                known.variant(host.settings.variant)
            except JetmaskError as error:
                raise UsageError(error.what, f"{fleet.path}, {host.name}", error.expected, error.remedy) from error
        board = Board([host.name for host in fleet.hosts])
        rollout = Rollout(
            fleet,
            journal,
            board,
            rollout_of.Settings(
                settings.canary, settings.canary_watch, settings.at_once, settings.keep, settings.skip_unreachable
            ),
        )
        if journal.state == journal_of.UNDOING:
            board.say("the last rollout failed and was interrupted during its rollback: the rollback is resumed")
            rollout.back()
            return _report(fleet, rollout, settings)
        if journal.touched() and journal.unfinished and journal.digest != digest:
            raise UsageError(
                f"a rollout of another bundle ({journal.digest[:16]}) is not finished",
                journal.path,
                "that bundle, to finish it",
                f"or undo it: jetmask deploy --fleet {fleet.path} --rollback",
            )
        if journal.unfinished and journal.digest == digest:
            board.say("an interrupted rollout of this bundle is resumed")
        else:
            journal.begin(digest, os.path.basename(os.path.abspath(_bundle(fleet, settings))))
        rollout.forward(contents)
        return _report(fleet, rollout, settings)


def _go_back(fleet: Fleet, journal: Journal, settings: FleetSettings) -> int:
    if journal.state is None or not journal.touched():
        raise UsageError(
            "nothing to roll back: no rollout of this fleet has activated a bundle",
            journal.path,
            None,
            f"jetmask deploy --fleet {fleet.path} --status shows what runs",
        )
    rollout = Rollout(
        fleet, journal, Board([host.name for host in fleet.hosts]), rollout_of.Settings(at_once=settings.at_once)
    )
    rollout.back()
    _report(fleet, rollout, settings)
    return cli.INTERRUPTED if rollout.interrupted else 1 if rollout.errors else 0


def _report(fleet: Fleet, rollout: Rollout, settings: FleetSettings) -> int:
    """Print how it ended; the exit code: 0, that of the first device that failed, or 130."""
    rollout.board.close()
    journal, results = rollout.journal, rollout.board.results()
    for row in results:
        row["was"] = journal.host(row["host"]).get("was")
        new = row["result"] in (journal_of.UPDATED, journal_of.SAME, rollout_of.KEPT)
        # Of one that failed in its switch nobody has asked yet what it runs.
        stayed = row["result"] == journal_of.BACK or (
            row["result"] == rollout_of.FAILED and journal.host(row["host"]).get("phase") != journal_of.SWITCHING
        )
        row["now"] = journal.digest if new else row["was"] if stayed else None
    forgotten = sorted(set(journal.touched()) - {host.name for host in fleet.hosts})
    first = next(iter(rollout.errors.values()), None)
    good = journal.state == (journal_of.UNDONE if settings.rollback else journal_of.DONE) and first is None
    if settings.json:
        print(
            json.dumps(
                {
                    "rollout": journal.rollout,
                    "digest": journal.digest,
                    "state": journal.state,
                    "ok": good,
                    "interrupted": rollout.interrupted,
                    "not_in_the_file": forgotten,
                    "hosts": results,
                },
                indent=1,
            )
        )
    else:
        print(text_table(results))
        for name in forgotten:
            print(f"{name} was updated by this rollout and is no longer in {fleet.path}: left as it is")
        print(_verdict(rollout, results))
        if first is not None:
            board = "\n".join(f"{name}: {error}" for name, error in rollout.errors.items())
            rollout.board.say(board)
    if rollout.interrupted:
        return cli.INTERRUPTED
    return 0 if good else first.exit_code if isinstance(first, JetmaskError) else 1


def _verdict(rollout: Rollout, results: list[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for row in results:
        counts[row["result"]] = counts.get(row["result"], 0) + 1
    said = f"bundle {rollout.journal.digest[:16]}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    path = rollout.fleet.path
    if rollout.interrupted:
        return said + f"\ncut off; the same command goes on, `jetmask deploy --fleet {path} --rollback` rolls back"
    if rollout.journal.state == journal_of.FAILED:
        return said + f"\nkept as it is; `jetmask deploy --fleet {path} --rollback` rolls back"
    if journal_of.STUCK in counts:
        return said + f"\nnot all are back; `jetmask deploy --fleet {path} --rollback` tries those again"
    return said


def _status(fleet: Fleet, settings: FleetSettings) -> int:
    """What every device runs: 0 where all are healthy, 3 where one was not reached, else 1."""
    with ThreadPoolExecutor(settings.at_once) as pool:
        rows = list(pool.map(functools.partial(_ask, more=bool(settings.html)), fleet.hosts))
    if settings.html:
        at = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        files.write_text(settings.html, fleet_page.page(rows, fleet.path, at, settings.every))
    if settings.json:
        print(json.dumps({"hosts": rows}, indent=1))
    else:
        cells = [
            [
                row["host"],
                (row["current"] or "-")[:16],
                row["name"] or "-",
                (row["previous"] or "-")[:16],
                row["service"] or "-",
                "-" if row["healthy"] is None else "healthy" if row["healthy"] else "not healthy",
            ]
            for row in rows
        ]
        print(table(["device", "runs", "bundle", "previous", "service", "health"], cells))
        for row in rows:
            if row["error"]:
                print(f"{row['host']}: {row['error'].splitlines()[0]}")
    if any(row["reached"] is False for row in rows):
        return Unreachable.exit_code
    return 0 if all(row["healthy"] for row in rows) else 1


def _ask(host: Host, more: bool = False) -> dict[str, Any]:
    """What one device tells; `more`: its cameras and its disk, too."""
    row: dict[str, Any] = {
        "host": host.name,
        "reached": True,
        "current": None,
        "previous": None,
        "name": None,
        "service": None,
        "healthy": None,
        "trial": None,
        "last": None,
        "error": None,
    }
    try:
        ssh = deploy_options.words(host.settings.ssh, "ssh")
        with Remote(host.name, ssh, host.settings.retries, say=lambda text: None) as remote:
            installed = Installed(remote, host.settings)
            installed.require()
            found = installed.status()
            names = {bundle["digest"]: bundle.get("name") for bundle in found["bundles"]}
            row.update(
                current=found["current"],
                previous=found["previous"],
                name=names.get(found["current"]),
                trial=found["trial"],
                last=(found["result"] or {}).get("message"),
            )
            if found["service"] is not None:
                row.update(service=found["service"]["kind"], healthy=bool(installed.health(found["service"])))
                if more:
                    row.update(installed.seen(found["service"]))
    except Unreachable as error:
        row.update(reached=False, error=str(error.what))
    except JetmaskError as error:
        row.update(error=str(error.what))
    return row
