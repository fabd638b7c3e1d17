"""The state of a fleet as one static page of HTML, which asks for itself again: nothing runs in it."""

import html
from collections.abc import Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #14201f; --quiet: #55636a; --ground: #f3f5f6; --card: #fff; --line: #dfe4e7;
  --good: #0d7f6d; --bad: #c92f3b; --warn: #8f5200; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8efee; --quiet: #9db0b2; --ground: #0d1314; --card: #151d1f;
  --line: #273235; --good: #4fd0b4; --bad: #ff7d83; --warn: #f5b958; } }
body { margin: 0; padding: 1rem clamp(.8rem, 3vw, 2rem); background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.2rem; margin: 0; } p { color: var(--quiet); margin: .3rem 0 1rem; }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line); }
th, td { text-align: left; padding: .5rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
thead th { color: var(--quiet); font-size: .85rem; } td.good { color: var(--good); } td.bad { color: var(--bad); }
td.warn { color: var(--warn); } small { color: var(--quiet); display: block; }
@media (max-width: 760px) { thead { position: absolute; clip-path: inset(50%); }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  tr > * { display: grid; grid-template-columns: 7.5rem minmax(0, 1fr); border: 0; padding: .15rem .7rem; }
  tr > *::before { content: attr(data-name); color: var(--quiet); font-weight: 400; } }
"""
_COLUMNS = ("device", "runs", "health", "cameras", "compliance", "drift", "disk free", "previous")


def page(rows: Sequence[dict[str, Any]], fleet: str, at: str, every_s: float | None) -> str:
    """The whole page. rows: as `deploy --fleet --status --json` has them; at: when they were asked, in words.

    every_s: seconds between two rounds, after which a browser asks again; None: it was one round alone.
    """
    healthy = sum(1 for row in rows if row["healthy"])
    refresh = f'<meta http-equiv="refresh" content="{max(5, round(every_s))}">' if every_s else ""
    heads = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}'
        f"<title>{'' if healthy == len(rows) else '⚠ '}{healthy} of {len(rows)} healthy · jetmask</title>"
        f"<style>{_STYLE}</style></head><body><main><h1>{healthy} of {len(rows)} devices healthy</h1>"
        f"<p>{html.escape(fleet)}, asked {html.escape(at)}"
        + (f", again every {every_s:g} s" if every_s else "")
        + f"</p><table><thead><tr>{heads}</tr></thead><tbody>"
        + "\n".join(_row(row) for row in rows)
        + "</tbody></table></main></body></html>\n"
    )


def _row(row: dict[str, Any]) -> str:
    health = (
        ("bad", "not reached")
        if not row["reached"]
        else ("", "-")
        if row["healthy"] is None
        else ("good", "healthy")
        if row["healthy"]
        else ("bad", "not healthy")
    )
    state = row.get("state") or {}
    cameras = state.get("cameras")
    live = sum(1 for one in cameras if one.get("status") == "live") if cameras is not None else 0
    share = compliance(state)
    drifted = [str(one.get("name")) for one in cameras or () if (one.get("drift") or {}).get("look")]
    disk = row.get("disk_free_share")
    cells = [
        ("", row["host"], row["error"].splitlines()[0] if row["error"] else ""),
        ("", row["name"] or "-", " ".join(filter(None, ((row["current"] or "")[:16], state.get("version"))))),
        (*health, row["service"] or ""),
        (
            "warn" if cameras and live < len(cameras) else "",
            "-" if cameras is None else f"{live} of {len(cameras)} live",
            row.get("state_error") or "",
        ),
        ("", "-" if share is None else f"{100 * share:.0f} %", ""),
        ("warn" if drifted else "", ", ".join(drifted) or ("-" if cameras is None else "none"), ""),
        ("bad" if disk is not None and disk < 0.1 else "", "-" if disk is None else f"{100 * disk:.0f} %", ""),
        ("", (row["previous"] or "-")[:16], ""),
    ]
    parts = []
    for number, (name, (kind, text, more)) in enumerate(zip(_COLUMNS, cells, strict=True)):
        tag = 'th scope="row"' if number == 0 else "td"
        small = f"<small>{html.escape(more)}</small>" if more else ""
        parts.append(
            f'<{tag} data-name="{name}" class="{kind}"><span>{html.escape(text)}{small}</span></{tag.split()[0]}>'
        )
    return "<tr>" + "".join(parts) + "</tr>"


def compliance(state: dict[str, Any]) -> float | None:
    """The share of the persons counted so far whose class is as it should be; None where nobody was counted."""
    roles = state.get("roles") or {}
    good = everybody = 0
    for one in state.get("cameras") or ():
        for label, count in (one.get("persons") or {}).items():
            if roles.get(label) in ("ok", "alert", "attention"):
                everybody += count
                good += count if roles[label] == "ok" else 0
    return good / everybody if everybody else None
