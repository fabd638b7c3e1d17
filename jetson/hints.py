"""What somebody may have meant: the nearest names by beginning, by parts, by what others call it, and then by letters.

Letters alone mislead: of `s-416` and `m-416x256-fp32` they say little, and `--imgsz` looks like nothing of ours.
"""

import difflib
import re
from typing import Dict, Iterable, List, Mapping, Optional, Sequence

# What Ultralytics' commands and trtexec call our options; of several the first that a verb has is named.
OPTIONS: Dict[str, List[str]] = {
    "--imgsz": ["--input-wh"],
    "--img": ["--input-wh"],
    "--img-size": ["--input-wh"],
    "--shapes": ["--input-wh"],
    "--minshapes": ["--input-wh"],
    "--optshapes": ["--input-wh"],
    "--maxshapes": ["--input-wh"],
    "--size": ["--input-wh", "--sizes"],
    "--weights": ["--model", "--bundle", "--variant"],
    "--model": ["--bundle", "--variant"],
    "--onnx": ["--model", "MODEL"],
    "--saveengine": ["--out"],
    "--loadengine": ["--bundle"],
    "--project": ["--out"],
    "--name": ["--out"],
    "--output": ["--out"],
    "--save-dir": ["--out"],
    "--exporttimes": ["--out", "--json"],
    "--exportprofile": ["--layers"],
    "--dumpprofile": ["--layers"],
    "--dumplayerinfo": ["--layers"],
    "--separateprofilerun": ["--layers"],
    "--fp16": ["--precision fp16"],
    "--half": ["--precision fp16"],
    "--int8": ["--precision int8"],
    "--best": ["--precision fp16"],
    "--notf32": ["--precision fp32"],
    "--calib": ["--calibration"],
    "--mempoolsize": ["--workspace-mb", "--workspace-mib"],
    "--workspace": ["--workspace-mb", "--workspace-mib"],
    "--usedlacore": ["--target"],
    "--device": ["--target", "--runtime"],
    "--backend": ["--runtime"],
    "--conf": ["--score"],
    "--conf-thres": ["--score"],
    "--threshold": ["--score"],
    "--iou-thres": ["--iou"],
    "--iou": [],
    "--opset": [],
    "--format": [],
    "--source": ["--source"],
    "--save-conf": ["--save-txt"],
    "--save": [],
    "--show": [],
    "--exist-ok": ["--restart"],
    "--workers": ["--jobs", "--threads"],
    "--nproc": ["--jobs"],
    "--yaml": ["--config"],
    "--cfg": ["--config"],
    "--hyp": ["--config"],
    "--split": ["--data"],
    "--dataset": ["--data"],
    "--camera": ["--source"],
    "--video": ["--source"],
    "--input": ["--source", "--data"],
    "--address": ["--host"],
    "--bind": ["--host"],
    "--iterations": ["--frames", "--seconds"],
    "--avgruns": ["--frames", "--seconds"],
    "--duration": ["--seconds"],
    "--warmup": ["--frames", "--seconds"],
    "--debug": ["-v"],
    "--silent": ["-q"],
}

# What a verb may take as a word without an option, and others as one.
OF_WORDS = ("--source", "--input", "--onnx", "--model", "--data", "--path", "--images", "--weights", "--yaml", "--cfg")


def _parts(word: str) -> List[str]:
    return [part for part in re.split(r"[^a-z0-9]+", word.lower()) if part]


def nearest(word: str, names: Iterable[str], synonyms: Optional[Mapping[str, str]] = None, most: int = 3) -> List[str]:
    """Up to `most` of the names that `word` may mean, the likeliest first.

    First what others call so (`synonyms`: their word, lower case -> ours), then names that begin with it, names that
    have all of its parts (`jetson nano` -> nano), and names of like letters.

    >>> nearest("s-416", ["m-416x256-fp32", "s-320x192-fp32", "s-416x256-fp16", "s-416x256-fp32"])
    ['s-416x256-fp16', 's-416x256-fp32']
    >>> nearest("jetson nano", ["nano", "orin-nano", "tx2"])
    ['nano']
    """
    names = list(names)
    given = word.strip().lower()
    known = (synonyms or {}).get(given)
    if known is not None:
        return [known]
    if not given:
        return []
    begins = [name for name in names if name.lower().startswith(given)]
    if begins:
        return begins[:most]
    lower: Dict[str, str] = {}
    for name in names:
        lower.setdefault(name.lower(), name)
    misspelt = difflib.get_close_matches(given, list(lower), 1, 0.9)
    if misspelt:
        return [lower[misspelt[0]]]
    parts = _parts(given)
    # The name's parts all stand in the word: the longest such name says most of it. Then the other way round.
    inside = [name for name in names if _parts(name) and all(part in parts for part in _parts(name))]
    if inside:
        longest = max(len(_parts(name)) for name in inside)
        return [name for name in inside if len(_parts(name)) == longest][:most]
    having = [name for name in names if parts and all(_has(part, _parts(name)) for part in parts)]
    if having:
        return having[:most]
    return [lower[name] for name in difflib.get_close_matches(given, list(lower), 1, 0.5)]


def _has(part: str, parts: Sequence[str]) -> bool:
    """Whether a part is one of these, or the beginning of one; a single letter must be one."""
    return any(own == part or (len(part) > 1 and own.startswith(part)) for own in parts)


def question(found: Sequence[str], mark: str = "") -> Optional[str]:
    """`did you mean a or b?`; None where nothing was found.

    >>> question(["a", "b", "c"])
    'did you mean a, b or c?'
    """
    if not found:
        return None
    words = [mark + word + mark for word in found]
    return "did you mean {}?".format(" or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words))


def listed(names: Iterable[str], most: int = 8) -> str:
    """`one of a, b, c`: all of a short list, the beginning of a long one with its length.

    >>> listed(str(n) for n in range(12))
    'one of 0, 1, 2, 3, 4, 5, 6, 7, … (12 in all)'
    """
    names = list(names)
    if len(names) <= most + 1:
        return "one of " + ", ".join(names)
    return "one of {}, … ({} in all)".format(", ".join(names[:most]), len(names))


def _known(word: str, names: Sequence[str]) -> List[str]:
    """What OPTIONS says of a word, as far as the verb has it."""
    return [ours for ours in OPTIONS[word.lower()] if ours.split()[0] in names or len(ours) == 2]


def is_one(word: str, names: Sequence[str], meanings: Optional[Mapping[str, str]] = None) -> bool:
    """Whether argparse may take this for one of `names`: it is one, or the beginning of one, but not of one that
    means another thing.

    >>> is_one("--conf", ["--config"]), is_one("--workspace", ["--workspace-mb"]), is_one("--vers", ["--version"])
    (False, True, True)
    """
    if word in names:
        return True
    begins = [name for name in names if name.startswith(word)]
    if meanings and word in meanings:
        return False
    return bool(begins) and (word.lower() not in OPTIONS or begins[0] in _known(word, names))


def option(word: str, names: Sequence[str], meanings: Optional[Mapping[str, str]] = None) -> List[str]:
    """What an option that there is not may mean: one of `names`, or what `meanings` or OPTIONS say of it.

    meanings: {an option as others or other verbs call it: what to write here}.

    >>> option("--imgsz", ["--data", "--input-wh"])
    ['--input-wh']
    """
    if meanings and word in meanings:
        return [meanings[word]]
    if word.lower() in OPTIONS:  # nothing of like letters: `--iou` is not `--out`
        return _known(word, names)[:1]
    plain = {name.lstrip("-"): name for name in names if name.startswith("--")}
    return [plain[name] for name in nearest(word.lstrip("-"), list(plain), most=2)]
