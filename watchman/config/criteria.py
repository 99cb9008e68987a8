"""``complete``, of PATTERNS entries and of watches: what a file must be before it is an arrival.

And ``with``, of PATTERNS entries alone: which files must be there beside it.
"""

from __future__ import annotations

import fnmatch
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from watchman.config.problems import Problems, closest, names, show
from watchman.config.values import is_number, is_text
from watchman.model import Criteria, Criterion, Member, Route
from watchman.verdicts.format_names import AUTO, FORMAT_NAMES, THOROUGH, is_known

KEYS = ("complete", "incomplete_after", "marker_action")
"""Keys of a PATTERNS entry or a watch that are read here."""
SET_KEYS = ("with", "set_after")
"""Those of a PATTERNS entry alone."""
EXAMPLE = "'complete': 'auto', 'gzip', {'marker': '{name}.done'} or {'checksum': '{name}.sha256'}"
SET_EXAMPLE = "'with': ['{stem}.shx', '{stem}.prj?']"
_AFTER = 3600.0
_SET_AFTER = 5.0
ACTIONS = ("move", "remove", "keep")
_COMPANIONS = ("marker", "checksum", "size")
_FIELDS = re.compile(r"\{([^{}]*)\}")
_WILDCARD = re.compile(r"\*|\?|\[!?\]?[^\]]*\]")


def criteria(
    given: Mapping[Any, Any], label: str, problems: Problems, incomplete: Route | None = None
) -> Criteria | None:
    """Return what ``given`` asks of a file, with the task for one that stays incomplete."""
    value, members = given.get("complete"), given.get("with")
    if value is None and members is None:
        for key in (*KEYS[1:], *(["incomplete_task"] if incomplete else [])):
            if key in given:
                problems.add(label, f"'{key}' stands without 'complete'", f"write {EXAMPLE}")
        return None
    several = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    each = tuple(
        one
        for number, item in enumerate(several)
        for one in _criterion(item, f"{label}: 'complete'", number, problems)
    )
    if not several and value is not None:
        problems.add(label, "'complete' is empty", f"write {EXAMPLE}, or leave it out")
    after = _seconds(given, "incomplete_after", _AFTER, 1.0, label, problems)
    action = given.get("marker_action", ACTIONS[0])
    if not isinstance(action, str) or action not in ACTIONS:
        problems.add(label, f"'marker_action' is {show(action)}", f"write one of {names(ACTIONS)}")
    return Criteria(each, after, incomplete, str(action))


def with_set(
    given: Mapping[Any, Any],
    pattern: str,
    asked: Criteria | None,
    label: str,
    problems: Problems,
) -> Criteria | None:
    """Return what is asked of a file together with the files that go with it."""
    value = given.get("with")
    if value is None:
        if "set_after" in given:
            problems.add(label, "'set_after' stands without 'with'", f"write {SET_EXAMPLE}")
        return asked
    if not isinstance(value, (list, tuple)) or not value:
        problems.add(label, f"'with' is {show(value)}", f"write {SET_EXAMPLE}")
        return asked
    members: list[Member] = []
    for item in value:
        wrong, remedy = _member_error(item, pattern, members, asked)
        if wrong:
            problems.add(label, f"'with': {show(item)} {wrong}", remedy)
        else:
            members.append(_member(item))
    kwargs = given.get("kwargs")
    if isinstance(kwargs, Mapping) and "files" in kwargs:
        wrong = "'files' in 'kwargs' is where the task gets the files of its set"
        problems.add(label, wrong, "give yours another name")
    after = _seconds(given, "set_after", _SET_AFTER, 0.0, label, problems)
    return replace(asked or Criteria(()), members=tuple(members), set_after=after)


def _member(text: str) -> Member:
    return Member(text.removesuffix("?"), text.endswith("?"))


def _member_error(
    item: Any, pattern: str, members: Sequence[Member], asked: Criteria | None
) -> tuple[str, str]:
    """Return what is wrong with an entry of ``with``, and what to write; empty if nothing is."""
    remedy = "write '{stem}.shx', or '{stem}.prj?' for one that may be missing"
    if not is_text(item):
        return "is no name of a file beside the other", remedy
    template = _member(item).template
    fields = set(_FIELDS.findall(template))
    if not template or "/" in template or template in (".", ".."):
        return "is no name of a file beside the other", remedy
    if not fields & {"name", "stem"}:
        return "has not '{name}' or '{stem}'", remedy
    if not fields <= {"name", "stem"}:
        return "has another field than '{name}' and '{stem}'", remedy
    suffix = suffix_of(pattern)
    if "name" not in fields and not suffix:
        remedy = "have it end in a suffix, such as '*.shp', or write '{name}'"
        return "tells the name without its suffix, and the pattern does not tell that", remedy
    if template in ("{name}", f"{{stem}}{suffix}"):
        return "is the file itself", remedy
    if any(template == member.template for member in members):
        return "stands there twice", "remove one of the two"
    each = asked.each if asked is not None else ()
    if any(template == one.argument for one in each if one.kind in _COMPANIONS):
        return "is asked for by 'complete' as well", "remove one of the two"
    return "", ""


def pattern_of(member: Member, pattern: str) -> str:
    """Return the pattern of the members of a pattern's main files; empty where none is as simple.

    ``member`` is one of that pattern.
    """
    rest = member.template[len("{name}") :]
    suffix = suffix_of(pattern)
    if "{" in rest:
        return ""
    if member.template.startswith("{name}"):
        return pattern + rest
    return pattern.removesuffix(suffix) + rest if member.template.startswith("{stem}") else ""


def suffix_of(pattern: str) -> str:
    """Return the suffix of the names that a pattern matches; empty where it does not tell."""
    _, slash, tail = re.split(r"[*?\]]", pattern)[-1].rpartition("/")
    # Behind a slash it is the whole name, and a dot at its beginning is none of a suffix.
    dot = (tail.lstrip(".") if slash else tail).rfind(".")
    return tail[tail.rfind(".") :] if dot >= 0 else ""


def example_suffix(pattern: str) -> str:
    """Return one of the suffixes of the names that a pattern matches, where it takes several."""
    last = pattern[pattern.rfind("/") + 1 :]
    example = _WILDCARD.sub(_stand_in, last)
    return example[example.rfind(".") :] if example != last and "." in example else ""


def _stand_in(wildcard: re.Match[str]) -> str:
    """Return what a wildcard matches."""
    if wildcard[0] == "*":
        return ""
    # What stands in brackets comes first: it may be any letter.
    likely = wildcard[0] + string.ascii_letters + string.digits
    return next((one for one in likely if fnmatch.fnmatchcase(one, wildcard[0])), "")


def _seconds(
    given: Mapping[Any, Any], key: str, default: float, least: float, label: str, problems: Problems
) -> float:
    value = given.get(key, default)
    if is_number(value, least=least):
        return float(value)
    least_text = f", {least:g} at the least" if least else ""
    problems.add(label, f"'{key}' is {show(value)}", f"write a number of seconds{least_text}")
    return 0.0


def _criterion(item: Any, label: str, number: int, problems: Problems) -> list[Criterion]:
    if isinstance(item, str):
        return _format(item, label, problems)
    if isinstance(item, Mapping):
        found = []
        for kind, argument in item.items():
            if isinstance(kind, str) and kind == "format" and isinstance(argument, str):
                found += _format(argument, label, problems)
            elif isinstance(kind, str) and kind in _COMPANIONS:
                found += _companion(kind, argument, label, problems)
            else:
                problems.unknown(label, "condition", kind, ("format", *_COMPANIONS))
        return found
    if callable(item):
        return [Criterion("callable", f"{label}[{number}]", item)]
    problems.add(label, f"{show(item)} is no condition", f"write {EXAMPLE}, or a function")
    return []


def _format(name: str, label: str, problems: Problems) -> list[Criterion]:
    if is_known(name):
        return [Criterion("format", name)]
    known = (AUTO, *FORMAT_NAMES)
    close = closest(name.removesuffix(THOROUGH), known)
    remedy = f"write '{close}'" if close else f"write one of {names(known)}"
    if "{" in name:
        remedy = f"write {{'marker': {show(name)}}} if a file of that name must be there"
    problems.add(label, f"unknown format {show(name)}", remedy)
    return []


def _companion(kind: str, template: Any, label: str, problems: Problems) -> list[Criterion]:
    fields = ("name", "stem", "size") if kind == "size" else ("name", "stem")
    wrong = ""
    if not is_text(template) or "/" in template or template in (".", ".."):
        wrong = "is no name of a file beside the other"
    elif not set(_FIELDS.findall(template)) <= set(fields):
        wrong = f"has other fields than {names(f'{{{one}}}' for one in fields)}"
    elif template == "{name}" or (template == "{stem}" and kind != "size"):
        wrong = "is the file itself"
    if wrong:
        problems.add(label, f"'{kind}': {show(template)} {wrong}", "write '{name}.done', say")
        return []
    return [Criterion(kind, template)]
