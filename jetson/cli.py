"""The command line's frame: finds the verb, and turns what goes wrong into one clear message and an exit code.

A verb's module has `options(parser)` and `command(args)`; only the chosen verb's module is imported. A module that
serves more verbs names them "module:prefix", with `prefix_options` and `prefix_command`.
"""

import argparse
import errno
import importlib
import os
import re
import sys
import tempfile
import traceback
from typing import Any, Dict, List, Mapping, Optional, Tuple

from jetson import __version__, hints, logs, version
from jetson.errors import BadInput, JetmaskError, UsageError

INTERRUPTED = 130
# What others call what our verbs do; a verb that a half does not have is not named there.
VERBS_OF_OTHERS = {
    "val": "evaluate",
    "validate": "evaluate",
    "test": "evaluate",
    "eval": "evaluate",
    "detect": "run",
    "track": "run",
    "benchmark": "bench",
    "profile": "bench",
    "trtexec": "build",
    "convert": "export",
    "fit": "train",
    "compile": "train",
    "finetune": "train",
    "summary": "predict",
    "quantize": "build",
    "quantise": "build",
    "tune": "sweep",
    "check": "doctor",
    "checks": "doctor",
    "settings": "doctor",
    "import": "data",
    "start": "serve",
    "rollback": "install",
}
# What the system says about a path that the user chose, rather than about our code.
_USERS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class _Parser(argparse.ArgumentParser):
    """argparse, with what may have been meant by an option that there is not, or by a word that stands alone.

    `meanings`: {an option of others or of other verbs: what to write instead}; a verb's `options` may fill it. The key
    "" is about a word that is no option.
    """

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.meanings: Dict[str, str] = {}

    def _option_names(self, args: List[str]) -> List[str]:
        names: List[str] = []
        for action in self._actions:
            names += action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                chosen = [word for word in args if word in action.choices][:1]
                names += [name for word in chosen for name in action.choices[word]._option_names(args)]
        return names

    def _near(self, option: str, names: List[str]) -> str:
        """ " (did you mean …?)" of an option that there is not; "" where nothing is near."""
        near = hints.question(hints.option(option, names, self.meanings))
        alone = [str(action.metavar or action.dest) for action in self._actions if not action.option_strings]
        if near is None and option in hints.OF_WORDS and alone:
            near = f"{alone[0]} stands without an option"
        return f" ({near})" if near else ""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        # argparse first asks for what is required, even when it stands there, misspelt.
        names = self._option_names(args)
        before = ""
        for word in args:
            if word == "--":
                break
            option, is_set, value = word.partition("=")
            if option.startswith("--") and not hints.is_one(option, names, self.meanings):
                self.error(f"unknown option {option}" + self._near(option, names))
            if is_set and not option.startswith("-") and not before.startswith("-") and not os.path.exists(word):
                given = f"--{option}"
                if given in names:
                    self.error(f"{word}: options are written {given} {value}")
                known = given in self.meanings or given in hints.OPTIONS or given in hints.OF_WORDS
                near = self._near(given, names)
                if known and near:
                    self.error(f"unknown option {option}={near}")
            before = word
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            told = f"; {self.meanings['']}" if "" in self.meanings and not rest[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{told}")
        return found

    def error(self, message: str) -> Any:
        # argparse repeats what it does not understand, and an address may hold a camera's password.
        return super().error(_without_addresses(message))


def add_meanings(parser: argparse.ArgumentParser, words: Mapping[str, str]) -> None:
    """Tell a verb's parser what somebody may mean by options that the verb does not have (see _Parser)."""
    getattr(parser, "meanings", {}).update(words)


def _add_verbosity(parser: argparse.ArgumentParser) -> None:
    """-v and -q for a verb and what stands below it; one that is given last counts."""
    suppress = argparse.SUPPRESS
    parser.add_argument("-v", "--verbose", dest="verbosity", action="store_const", const=1, default=suppress,
                        help="show more, with times and module names")  # fmt: skip
    parser.add_argument("-q", "--quiet", dest="verbosity", action="store_const", const=-1, default=suppress,
                        help="tell results, warnings and errors only")  # fmt: skip
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in set(action.choices.values()):
                _add_verbosity(inner)


def _without_addresses(text: str) -> str:
    return re.sub(r"://.*", "://…", text, flags=re.DOTALL)


def _listing(prog: str, verbs: Mapping[str, Tuple[str, str]]) -> str:
    width = max(len(verb) for verb in verbs)
    lines = [f"usage: {prog} VERB [options]", ""]
    lines += [f"  {verb:<{width}}  {text}" for verb, (_, text) in verbs.items()]
    lines += ["", f"{prog} VERB --help shows a verb's options with an example; {prog} --version the version."]
    return "\n".join(lines)


def parser_for(verb: str, prog: str, verbs: Mapping[str, Tuple[str, str]]) -> argparse.ArgumentParser:
    """The parser of one verb; its `command` default is the function to call."""
    where, text = verbs[verb]
    name, _, prefix = where.partition(":")
    prefix = prefix.rstrip("_") + "_" if prefix else ""
    module = importlib.import_module(name)
    parser = _Parser(prog=f"{prog} {verb}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    getattr(module, prefix + "options")(parser)
    _add_verbosity(parser)
    parser.set_defaults(command_of_verb=getattr(module, prefix + "command"))
    return parser


def _log_traceback() -> Optional[str]:
    try:
        handle, path = tempfile.mkstemp(prefix="jetmask-error-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(
                f"jetmask {__version__} on Python {sys.version}\n{[_without_addresses(word) for word in sys.argv]}\n\n"
            )
            traceback.print_exc(file=file)
    except OSError:
        return None
    return path


def _run(verb: str, rest: List[str], prog: str, verbs: Mapping[str, Tuple[str, str]]) -> int:
    try:
        args = parser_for(verb, prog, verbs).parse_args(rest)
        logs.start(getattr(args, "verbosity", 0))
        return int(args.command_of_verb(args) or 0)
    except ModuleNotFoundError as error:
        # What the base install leaves out is a set-up matter of the user; a missing module of our own is our fault.
        if (error.name or "").split(".")[0] in ("jetson", "pipeline", ""):
            raise
        raise JetmaskError(
            f"`{prog} {verb}` needs the Python module {error.name}, which is not installed",
            None,
            None,
            f"`{prog} doctor` says what to install",
        ) from error
    except ImportError as error:
        if "static TLS block" not in str(error):  # of glibc's loader, on aarch64: the order of loading decides
            raise
        raise JetmaskError(
            f"a library cannot be loaded: {error}", None, None, f"`{prog} doctor` says what to set before Python starts"
        ) from error


def main(argv: Optional[List[str]], prog: str, verbs: Mapping[str, Tuple[str, str]]) -> int:
    """Run one verb and return the exit code.

    `verbs`: {verb: ("module" or "module:prefix", one line of help)}. A JetmaskError gives its message and its exit
    code; Ctrl-C 130; a full disk 1 with a message; a path that cannot be used 3; anything else is an internal error,
    exit 1, with a traceback in a log file (on the screen with JETMASK_DEBUG=1).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            if not argv or argv[0] in ("-h", "--help", "help"):
                print(_listing(prog, verbs))
                return 0 if argv else UsageError.exit_code
            if argv[0] in ("-V", "--version"):
                print(f"{prog} {version.text()}")
                return 0
            if argv[0] not in verbs:
                near = hints.nearest(argv[0], verbs, VERBS_OF_OTHERS)
                raise UsageError(
                    f"unknown verb {argv[0]!r}",
                    None,
                    "one of " + ", ".join(verbs),
                    hints.question([f"{prog} {name}" for name in near if name in verbs], "`"),
                )
            return _run(argv[0], argv[1:], prog, verbs)
        finally:
            # A closed pipe or a full disk behind stdout shows here, inside the handlers below, not at exit.
            sys.stdout.flush()
    except SystemExit as error:  # argparse, after --help or a usage message
        return error.code if isinstance(error.code, int) else (0 if error.code is None else 1)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`); keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except JetmaskError as error:
        return _fail(error, error.exit_code)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(
                JetmaskError(
                    "no space left on the disk",
                    error.filename,
                    "free space",
                    "make room and run the command again; nothing half-written was left",
                ),
                1,
            )
        if error.errno in _USERS and error.filename is not None:
            return _fail(BadInput(os.strerror(error.errno).lower(), error.filename), BadInput.exit_code)
        return _internal(error)
    except Exception as error:
        return _internal(error)


def _fail(error: JetmaskError, code: int) -> int:
    if os.environ.get("JETMASK_DEBUG") == "1":
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    return code


def _internal(error: BaseException) -> int:
    if os.environ.get("JETMASK_DEBUG") == "1":
        traceback.print_exc()
        return 1
    log = _log_traceback()
    print(
        "internal error: {}: {}\n  do: report it{}; JETMASK_DEBUG=1 shows the traceback".format(
            type(error).__name__, error, f" with {log}" if log else ""
        ),
        file=sys.stderr,
    )
    return 1


def table(header: List[str], rows: List[List[Any]]) -> str:
    """A short text table: first column left, the others right.

    >>> print(table(["name", "AP50"], [["s", "79.1"], ["n", "-"]]))
    name  AP50
    s     79.1
    n        -
    """
    cells = [[str(cell) for cell in row] for row in [header] + rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
        for row in cells
    )
