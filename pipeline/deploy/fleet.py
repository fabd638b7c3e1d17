"""fleet.yaml: the devices of one rollout, each with the options that `jetmask deploy` would be given for it alone.

    bundle: facemask.tar            # optional; else it is named on the command line
    defaults:                       # any option of `jetmask deploy`, without its dashes
      no-container: true
      source: csi://0
    hosts:
      - user@gate-1
      - name: user@gate-2           # what is said here holds for this device alone
        variant: s-320x320-fp16
        source: [csi://0, csi://1]

What stands nearer to the device wins: its own entry over `defaults`, `defaults` over the command line. Paths are
relative to the file.
"""

import argparse
import dataclasses
import difflib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import yaml

from jetson.errors import BadInput
from pipeline.deploy.settings import Settings

# What concerns the rollout or the question that is asked, not one device.
_NOT_HERE = {
    "words",
    "fleet",
    "canary",
    "canary_watch",
    "at_once",
    "keep",
    "skip_unreachable",
    "json",
    "dry_run",
    "status",
    "list",
    "logs",
    "lines",
    "rollback",
    "prune_old",
    "help",
}
_PATHS = ("config", "image_tar", "wheels", "key", "measured")


class Host(NamedTuple):
    """One device: `name` as ssh knows it, and the settings of its deployment."""

    name: str
    settings: Settings


class Fleet(NamedTuple):
    """A fleet file: `bundle` is a path or None, `hosts` in the order of the file, each once."""

    path: str
    bundle: str | None
    hosts: list[Host]


def read(path: str, options: Callable[[argparse.ArgumentParser], None], base: Settings) -> Fleet:
    """Read a fleet file. `options` adds the arguments of `jetmask deploy`; `base`: the command line's.

    BadInput names the line and the key for whatever is wrong in the file.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.compose(file, yaml.SafeLoader)
    except OSError as error:
        raise BadInput(f"cannot read the fleet file: {error.strerror}", path, "a YAML file with hosts") from error
    except RecursionError:
        raise BadInput("the fleet file is nested too deeply", path, "a YAML file with hosts") from None
    except UnicodeDecodeError as error:
        raise BadInput("the fleet file is not UTF-8", path, "a YAML file with hosts") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadInput(
            f"not YAML: {said}", f"{path}, line {mark.line + 1}" if mark else path, "a YAML file with hosts"
        ) from error
    return _Reader(path, options, base).fleet(document)


class _Reader:
    def __init__(self, path: str, options: Callable[[argparse.ArgumentParser], None], base: Settings) -> None:
        self.path, self.base = path, base
        self.folder = os.path.dirname(os.path.abspath(path))
        parser = argparse.ArgumentParser()
        options(parser)
        self.actions = {
            name[2:]: action
            for action in parser._actions
            for name in action.option_strings
            if name.startswith("--") and action.dest not in _NOT_HERE
        }

    def fleet(self, document: Any) -> Fleet:
        if not isinstance(document, yaml.MappingNode):
            raise self._bad("the fleet file holds no keys", document, None, "`hosts:` and a list of devices")
        bundle, defaults, listed = None, {}, None
        for key, node in self._pairs(document, "the file"):
            if key == "bundle":
                bundle = os.path.join(self.folder, self._scalar(key, node))
            elif key == "defaults":
                defaults = self._options(node, "defaults", ("measured",))
            elif key == "hosts":
                listed = node
            else:
                raise self._unknown(key, node, ("bundle", "defaults", "hosts"))
        if not isinstance(listed, yaml.SequenceNode) or not listed.value:
            raise self._bad("the fleet has no hosts", listed or document, "hosts", "a list of devices: `- user@nano`")
        hosts: dict[str, Host] = {}
        lines: dict[str, int] = {}
        for node in listed.value:
            host = self._host(node, defaults)
            if host.name in hosts:
                raise self._bad(
                    f"{host.name} appears twice, first in line {lines[host.name]}", node, "hosts", "each device once"
                )
            hosts[host.name], lines[host.name] = host, node.start_mark.line + 1
        return Fleet(self.path, bundle, list(hosts.values()))

    def _host(self, node: Any, defaults: dict[str, Any]) -> Host:
        own: dict[str, Any] = {}
        if isinstance(node, yaml.MappingNode):
            own = self._options(node, "a device", ())
            name = own.pop("name", None)
        else:
            name = self._scalar("hosts", node)
        if not name or name.startswith("-") or any(c.isspace() for c in name):
            raise self._bad(
                "a device without a name" if name is None else f"{name!r} is not a host",
                node,
                "name",
                "user@host, or a name of ~/.ssh/config",
            )
        return Host(name, dataclasses.replace(self.base, **{**defaults, **own}))

    def _options(self, node: Any, where: str, refused: tuple[str, ...]) -> dict[str, Any]:
        """{dest: value} of a mapping of options."""
        if isinstance(node, yaml.ScalarNode) and not node.value and where == "defaults":
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self._bad(f"{where} holds no options", node, where, "keys and values, such as `port: 8081`")
        found: dict[str, Any] = {}
        for key, value in self._pairs(node, where):
            if key == "name" and where == "a device":
                found[key] = self._scalar(key, value)
            elif key not in self.actions or key in refused:
                raise self._unknown(key, value, [name for name in self.actions if name not in refused])
            else:
                action = self.actions[key]
                found[action.dest] = self._value(key, action, value)
        return found

    def _value(self, key: str, action: argparse.Action, node: Any) -> Any:
        if action.nargs == 0:
            if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
                return node.value.lower() in ("true", "yes", "on")
            raise self._bad(f"{key} is not true or false", node, key, "true or false")
        if isinstance(action, argparse._AppendAction):
            nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
            return tuple(self._scalar(key, each) for each in nodes)
        text = self._scalar(key, node)
        if action.choices is not None and text not in action.choices:
            raise self._bad(f"{key} is {text!r}", node, key, "one of " + ", ".join(map(str, action.choices)))
        if action.dest in _PATHS:
            return os.path.join(self.folder, text)
        try:
            return action.type(text) if callable(action.type) else text
        except (ValueError, OverflowError):
            kind = {int: "a whole number", float: "a number"}.get(action.type, "another value")  # type: ignore[call-overload]
            raise self._bad(f"{key} is {text!r}", node, key, kind) from None

    def _scalar(self, key: str, node: Any) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._bad(f"{key} is not a single value", node, key, "one value")
        if node.tag == "tag:yaml.org,2002:null":
            raise self._bad(f"{key} has no value", node, key, "a value")
        return str(node.value)

    def _pairs(self, node: Any, where: str) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._bad(f"a key of {where} is not a word", key_node, None, "a key such as `port`")
            key = str(key_node.value)
            if key in seen:
                raise self._bad(f"{key} appears twice, first in line {seen[key]}", key_node, key, "each key once")
            seen[key] = key_node.start_mark.line + 1
            yield key, value

    def _unknown(self, key: str, node: Any, known: Any) -> BadInput:
        near = difflib.get_close_matches(key.replace("_", "-"), list(known), 1, 0.5)
        return self._bad(
            f"unknown key {key!r}",
            node,
            key,
            "one of " + ", ".join(sorted(known)),
            f"did you mean {near[0]}?" if near else "see `jetmask deploy --help` for the options",
        )

    def _bad(self, what: str, node: Any, key: str | None, expected: str, remedy: str | None = None) -> BadInput:
        where = f"{self.path}, line {node.start_mark.line + 1}" if node is not None else self.path
        return BadInput(what, where + (f", key {key}" if key else ""), expected, remedy)
