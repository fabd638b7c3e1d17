"""What is installed on a device, asked and changed over ssh through the device's own `python3 -m jetson install`."""

import json
import os
import shlex
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

from jetson.errors import JetmaskError, UsageError
from pipeline.deploy import layout as device
from pipeline.deploy.device_bench import parse
from pipeline.deploy.layout import Layout
from pipeline.deploy.settings import Settings
from pipeline.deploy.ssh import MINUTES_S, QUICK_S, Remote


class Installed:
    """The installer on one device: that of the package `layout` names, without one that of the newest package there.

    `settings`: of which root, state, python, start and watch count here.
    """

    def __init__(self, remote: Remote, settings: Settings, layout: Layout | None = None) -> None:
        self.remote, self.settings, self.layout = remote, settings, layout

    def line(self, words: Sequence[str]) -> str:
        """The shell line that runs `install` with these words there."""
        words = [self.settings.python, "-m", "jetson", "install", *words]
        if self.layout is not None:
            return device.in_code(self.layout, words)
        layout = Layout(self.settings.root, self.settings.state, "")
        variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in device.environment(layout).items())
        return f'code={self._newest()}; test -n "$code" || exit 9; cd "$code/.." && {variables} exec ' + shlex.join(
            words
        )

    def _newest(self) -> str:
        return f"$(ls -1dt {shlex.quote(self.settings.root)}/[0-9]*/jetson 2>/dev/null | head -n 1)"

    def require(self) -> None:
        """UsageError where no package of ours is there."""
        if not self.remote.dry_run and self.remote.code(f'test -n "{self._newest()}"'):
            raise UsageError(
                f"nothing is deployed on {self.remote.target}",
                self.settings.root,
                None,
                "jetmask deploy BUNDLE USER@HOST",
            )

    def status(self, limit_s: float | None = None) -> dict[str, Any]:
        """What is installed there: see jetson.install.store.Store.status. `limit_s` as for Remote.run."""
        return parse(
            self.remote.run(self.line(["--status", "--state", self.settings.state, "--json"]), limit_s=limit_s),
            "the device's status",
        )

    def prune(self, keep: int) -> dict[str, Any]:
        """Remove what older releases left there: see jetson.install.leftovers.remove; {} in a dry run."""
        words = [
            "--prune-old",
            str(keep),
            "--root",
            self.settings.root,
            "--docker",
            self.settings.docker,
            "--state",
            self.settings.state,
            "--json",
        ]
        text = self.remote.run(self.line(words), limit_s=MINUTES_S)
        return {} if self.remote.dry_run else parse(text, "the device's answer")

    @staticmethod
    def half_back(status: dict[str, Any]) -> bool:
        """Whether a switch was cut off by a restart there: the bundle is the old one, but what runs it is the new one's
        container or unit, not the `service` of the status."""
        return (status["result"] or {}).get("restarted") is False

    def health(self, service: dict[str, Any]) -> str:
        """What the runner's health address answers there when all is well; "" otherwise. `service`: as in status."""
        where = urllib.parse.urlsplit(service["url"])
        # http.client: a device behind a proxy (http_proxy) must not ask that for its own runner.
        program = (
            f"import http.client as h; c = h.HTTPConnection({where.hostname!r}, {where.port or 80}, timeout=4); "
            f"c.request('GET', {where.path or '/'!r}); a = c.getresponse(); "
            "print(a.read().decode() if a.status == 200 else '')"
        )
        return self.remote.run([self.settings.python, "-c", program], check=False).strip()

    def seen(self, service: dict[str, Any]) -> dict[str, Any]:
        """{"state": what /api/state tells or None, "state_error": why not, "disk_free_share": of the state's disk}.

        `service`: as in status. Nothing is asked with a token: where the page needs one, the state is not told.
        """
        where = urllib.parse.urlsplit(service["url"])
        program = (
            "import http.client as h, json, os; d = os.statvfs("
            f"{self.settings.state!r}); c = h.HTTPConnection({where.hostname!r}, {where.port or 80}, timeout=4)\n"
            "c.request('GET', '/api/state'); a = c.getresponse(); t = a.read().decode()\n"
            "print(json.dumps({'status': a.status, 'text': t if a.status == 200 else '', "
            "'free': d.f_bavail / max(1, d.f_blocks)}))"
        )
        try:
            told = json.loads(self.remote.run([self.settings.python, "-c", program], check=False).strip() or "{}")
            state = json.loads(told["text"]) if told.get("text") else None
        except (ValueError, KeyError):
            told, state = {}, None
        status = told.get("status")
        error = None if state else "its page needs a token" if status == 401 else "its state was not told"
        return {"state": state, "state_error": error, "disk_free_share": told.get("free")}

    def switch(self, digest: str, service: str | None, say: Callable[[str], None]) -> None:
        """Switch to an installed bundle and wait until it has been watched; JetmaskError where the device went back.

        `service`: a file there that says how the runner is started from now on; None keeps what is set up.
        """
        token = f"{time.time():.3f}-{os.getpid()}"
        words = [
            "--activate",
            digest,
            *(["--service", service] if service else []),
            "--state",
            self.settings.state,
            "--token",
            token,
            "--start",
            str(self.settings.start),
            "--watch",
            str(self.settings.watch),
            "--detach",
        ]
        self.remote.run(self.line(words))
        if self.remote.dry_run:
            return
        result = self._await(token, say)
        if not result["ok"]:
            said = "".join("\n    | " + line for line in result.get("said", ()))
            raise JetmaskError(
                f"the device is not on the bundle {digest[:16]}: {result['message']}{said}",
                self.remote.target,
                None,
                "the new runner's last log lines above say why; what ran before runs again"
                if said
                else f"jetmask deploy --status {self.remote.target}",
            )

    def _await(self, token: str, say: Callable[[str], None]) -> dict[str, Any]:
        allowed_s = self.settings.start + self.settings.watch + 90
        end = time.monotonic() + allowed_s
        shown, pause_s, starting = None, 0.2, None
        while time.monotonic() < end:
            # A runner that starts may keep a small board so busy that even a question takes its time.
            status = self.status(limit_s=max(QUICK_S, end - time.monotonic()))
            result = status["result"] or {}
            if result.get("token") == token:
                return result
            trial = status["trial"] or {}
            if trial.get("starting") != starting:  # it builds its engine there, and the watch there counts on
                starting, end = trial.get("starting"), time.monotonic() + allowed_s
            phase = "on trial, building its engine" if starting else "on trial, watching" if trial else "waiting"
            if phase != shown:
                say(f"  {phase}")
                shown = phase
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 2.0)
        raise JetmaskError(
            "the activation on the device did not end in time",
            self.remote.target,
            None,
            "run the same deploy again: an unfinished activation is undone first",
        )
