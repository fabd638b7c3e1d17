"""Writes docs/reference/http.md, every address of the live page's server, from jetson/web/openapi.json.

python docs/http_reference.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "jetson" / "web" / "openapi.json"

HEAD = """# Addresses

Written from `jetson/web/openapi.json` by `python docs/http_reference.py`. A running jetmask serves that file at
`/api/v1/openapi.json`. Tokens and roles are in [Access and privacy](../access.md).
"""


def text_of() -> str:
    """The page."""
    spec = json.loads(SPEC.read_text(encoding="utf-8"))
    out = [HEAD]
    for path, item in spec["paths"].items():
        for method, one in item.items():
            out += [f"## `{method.upper()} {path}`", "", one["summary"], ""]
            if one["parameters"]:
                out += ["| field | meaning |", "|---|---|"]
                out += [f"| `{field['name']}` | {field['description']} |" for field in one["parameters"]] + [""]
            out += ["| answer | | |", "|---|---|---|"]
            for code, answer in one["responses"].items():
                kinds = ", ".join(f"`{kind.partition(';')[0]}`" for kind in answer.get("content", {}))
                out.append(f"| {code} | {answer['description']} | {kinds} |")
            out.append("")
    return "\n".join(out)


def main() -> None:
    """Write it."""
    target = ROOT / "docs" / "reference" / "http.md"
    target.write_text(text_of(), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
