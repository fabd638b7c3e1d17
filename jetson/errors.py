"""What a user can get wrong, as exceptions that say what, where, what was expected and what to do."""

from typing import Optional


class JetmaskError(Exception):
    """A failure with a message for the user; `exit_code` is the process's exit status.

    >>> print(BadInput("not JSON", "a.json, line 3", "a COCO file", "export it again"))
    not JSON
      where: a.json, line 3
      expected: a COCO file
      do: export it again
    """

    exit_code = 1

    def __init__(
        self,
        what: object,
        where: Optional[object] = None,
        expected: Optional[object] = None,
        remedy: Optional[object] = None,
    ) -> None:
        super().__init__(what, where, expected, remedy)
        self.what = what
        self.where = where
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [str(self.what)]
        for name, part in (("where", self.where), ("expected", self.expected), ("do", self.remedy)):
            if part is not None:
                lines.append(f"  {name}: {part}")
        return "\n".join(lines)


class UsageError(JetmaskError):
    """The command line or a configuration key is wrong."""

    exit_code = 2


class BadInput(JetmaskError):
    """A file, a bundle, a camera or a network peer is not what it must be."""

    exit_code = 3


class DeviceMismatch(JetmaskError):
    """This machine or the named target cannot do what was asked."""

    exit_code = 4


class QualityGate(JetmaskError):
    """Everything ran, and the result is not good enough."""

    exit_code = 5
