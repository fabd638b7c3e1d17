"""Passwords, tokens and keys: kept outside the settings, read when they are used, and never shown."""

import os
import stat
from typing import Iterable, NamedTuple, Optional
from urllib.parse import quote

from jetson.errors import BadInput

_LONGEST = 8192


class Secret(NamedTuple):
    """Where a secret is: a file, whose first line it is, or a variable of the environment."""

    file: str
    env: str

    def read(self, where: str = "alerts") -> str:
        """The secret as it is now (a file may be replaced while the runner runs). BadInput without its content."""
        if self.env:
            value = os.environ.get(self.env, "")
            if not value:
                raise BadInput(f"the variable {self.env} is not set", where, "a secret in the environment")
        else:
            try:
                with open(self.file, encoding="utf-8") as file:
                    value = file.read(_LONGEST + 1).split("\n", 1)[0].strip()
            except OSError as error:
                raise BadInput(
                    f"the secret's file cannot be read: {error.strerror}", f"{where}, {self.file}", "a file of one line"
                ) from error
            except UnicodeDecodeError:
                raise BadInput("the secret's file is not text", f"{where}, {self.file}", "a file of one line") from None
        if not value or len(value) > _LONGEST or not value.isprintable():
            raise BadInput("the secret is empty, too long or not printable", where, "one line of text")
        return value

    def exposed(self) -> Optional[str]:
        """A warning where others on this machine may read the file."""
        try:
            mode = os.stat(self.file).st_mode if self.file else 0
        except OSError:
            return None
        readable = stat.S_ISREG(mode) and mode & 0o077
        return f"warning: others may read the secret in {self.file}: chmod 600" if readable else None


def without(text: str, secrets: Iterable[Optional[Secret]]) -> str:
    """`text`, which a library has said, with nothing of the secrets in it."""
    for one in secrets:
        if one is None:
            continue
        try:
            value = one.read()
        except BadInput:
            continue
        for form in {value, quote(value, safe=""), repr(value)[1:-1]}:
            text = text.replace(form, "…")
    return text
