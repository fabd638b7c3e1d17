"""Writes docs/reference/verbs.md: every verb of the workstation and of the device with its options, from the parsers.

python docs/reference.py
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jetson import __main__ as device  # noqa: E402
from jetson import cli  # noqa: E402
from pipeline import cli as host  # noqa: E402

HEAD = """# Verbs

Written from the programs' own parsers by `python docs/reference.py`. Every verb also takes `--help`. Exit codes: 0
done, 1 internal error, 2 usage, 3 bad input, 4 device mismatch, 5 quality gate failed, 130 interrupted.
"""


def rows(parser: argparse.ArgumentParser) -> list[str]:
    """A table of a parser's arguments."""
    out = ["| argument | meaning |", "|---|---|"]
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)) or action.help == argparse.SUPPRESS:
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        if action.option_strings and action.nargs != 0:
            value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else None)
            name += f" {value or action.dest.upper()}"
        text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%").replace("|", "\\|")
        out.append(f"| `{name}`{' (required)' if action.required and action.option_strings else ''} | {text} |")
    return out if len(out) > 2 else []


def section(title: str, parser: argparse.ArgumentParser, text: str, level: int = 3) -> list[str]:
    """One verb, and those below it."""
    out = ["", f"{'#' * level} `{title}`", "", text[:1].upper() + text[1:] + ".", ""]
    example = (parser.epilog or "").strip()
    if example:
        out += ["```text", example, "```", ""]
    out += rows(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, below in action.choices.items():
                out += section(f"{title} {name}", below, helps.get(name, ""), level + 1)
    return out


def main() -> None:
    """Write it."""
    out = [HEAD, "## On the workstation"]
    for verb, (_, text) in host.VERBS.items():
        out += section(f"jetmask {verb}", cli.parser_for(verb, "jetmask", host.VERBS), text)
    out += ["", "## On the device"]
    for verb, (_, text) in device.VERBS.items():
        title = f"python3 -m jetson {verb}"
        out += section(title, cli.parser_for(verb, "python3 -m jetson", device.VERBS), text)
    target = ROOT / "docs" / "reference" / "verbs.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(out) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
