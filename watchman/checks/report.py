"""``notify check``: try what the configuration names, and change nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from watchman import coverage, hanging, timelimit
from watchman.checks.completeness_checks import check_completeness
from watchman.checks.log_handlers import check_logging
from watchman.checks.matching import RouteTarget
from watchman.checks.monitoring_checks import check_monitoring
from watchman.checks.result import Check
from watchman.checks.space import check_space
from watchman.checks.trees import (
    lease_test,
    missing_instance,
    walk,
    watches_of_others,
)
from watchman.checks.workers import Ask, check_workers
from watchman.file_access import status_of_watch
from watchman.limits import KernelLimit, instance_limit, watch_limit
from watchman.model import Broker, Config, Method, Route, Watch, WatchKind
from watchman.mounts import filesystem_type, is_polled, is_remote, mount_id
from watchman.router import Router


def check(
    config: Config,
    check_broker: Callable[[Broker], str | None],
    limit: Callable[[], KernelLimit | None] = watch_limit,
    preview: Callable[[Route], RouteTarget] | None = None,
    ask_workers: Ask | None = None,
    daemon: int | None = None,
) -> list[Check]:
    """Test directories, limits, destinations, our own places and the brokers, in this order.

    ``check_broker`` connects to a broker once and returns why it cannot be used, or None;
    ``limit`` returns the kernel's limit on watches; ``ask_workers``, with ``preview``, who takes
    tasks from a broker; ``daemon`` is the process that watches already.
    """
    found: list[Check] = []
    needed, whole = 0, True
    router = Router(config.patterns, config.moves, config.ignore, config.dry_run)
    for watch in config.watches:
        checks, directories, complete = _check_watch(watch, router)
        found += checks
        if not is_polled(watch):
            needed += directories
            whole = whole and complete
    found += _check_twins(config.watches)
    for glob in config.globs:
        if not any(watch.pattern == glob.path for watch in config.watches):
            remedy = "create one, or correct WATCHES; it is watched as soon as it is there"
            found.append(Check(f"watch {glob.path}", False, "no directory matches", remedy))
    if needed:
        others = watches_of_others(frozenset({daemon} if daemon else ()))
        found.append(_check_limit(needed, whole, limit(), others))
        found.append(_check_instances(needed_instances(config)))
    for source, root in config.all_moves:
        found += _check_move(source, root)
    found.append(_check_state(config.state_dir))
    found.append(_check_place("LOG_DIR", config.log_dir))
    found.append(_check_place("PID_FILE", os.path.dirname(config.pid_file)))
    found += check_space(config)
    found += check_logging(config)
    found += check_monitoring(config)
    found += check_completeness(config)
    found += _check_brokers(config, check_broker)
    if preview is not None:
        for pattern, route in config.patterns:
            found.append(_check_route(pattern, preview(route)))
        if ask_workers is not None:
            found += check_workers(_reachable(config, found), ask_workers, preview)
    return found


def _check_brokers(config: Config, check_broker: Callable[[Broker], str | None]) -> Iterator[Check]:
    """Yield whether each broker can be used."""
    used = {route.broker for _, route in config.patterns}
    for broker in config.brokers.values():
        subject, reason = broker_subject(broker), _reason(check_broker, broker)
        if reason:
            yield Check(subject, False, reason, "start it, or correct its URL in BROKERS")
        elif broker.name in used:
            yield Check(subject, True, "reachable")
        else:
            remedy = "name it in PATTERNS, or take it out of BROKERS"
            yield Check(subject, True, "reachable, but no pattern names it", remedy)


def _reachable(config: Config, found: Iterable[Check]) -> Config:
    """Return the configuration without the brokers that cannot be used: nobody asks them twice."""
    bad = {one.subject for one in found if not one.ok}
    left = {
        name: broker for name, broker in config.brokers.items() if broker_subject(broker) not in bad
    }
    return dataclasses.replace(config, brokers=left)


def broker_subject(broker: Broker) -> str:
    """Return what a broker's check is called."""
    return f"broker {broker.name}"


def _reason(check_broker: Callable[[Broker], str | None], broker: Broker) -> str | None:
    try:
        return check_broker(broker)
    except Exception as error:  # noqa: BLE001 — kombu raises all kinds for what it cannot use
        return f"{type(error).__name__}: {error}"


def _check_route(pattern: str, target: RouteTarget) -> Check:
    subject = f"pattern {pattern}"
    if target.problem:
        detail = f"Celery can make no message of it: {target.problem}"
        return Check(subject, False, detail, "correct its options, or celeryconfig.py")
    return Check(subject, True, f"goes to {target.text()}")


def _silence(subject: str, path: str) -> Check | None:
    """Return what is to be said where the file system of a path does not answer."""
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            timelimit.within(path, lambda: os.statvfs(path).f_bsize)
    except TimeoutError as error:
        detail, _, remedy = str(error.strerror).partition("; ")
        return Check(subject, False, detail, remedy)
    except OSError as error:
        return Check(subject, False, f"{path}: {error.strerror}", "see to what is mounted there")
    return None


def _check_watch(watch: Watch, router: Router) -> tuple[list[Check], int, bool]:
    """Return the checks, how many directories there are, and whether all were counted."""
    subject = f"watch {watch.path}"
    silence = _silence(subject, watch.path)
    if silence is not None:
        return [silence], 0, True
    wrong = _wrong_with(watch.path)
    if wrong is not None:
        return [Check(subject, False, *wrong)], 0, True
    tree = walk(watch, router)
    more = "" if tree.whole else "more than "
    count = f"{more}{tree.directories} director{'y' if tree.directories == 1 else 'ies'}"
    kind = filesystem_type(watch.path)
    how = "polled" if is_polled(watch) else "inotify"
    checks = [Check(subject, True, f"{count} on {kind or 'an unknown file system'}, {how}")]
    if tree.unreadable:
        first, several = tree.unreadable[0], len(tree.unreadable)
        checks.append(
            Check(
                subject,
                False,
                f"{several} cannot be read by user {os.geteuid()}, such as {first}",
                "give this user read and search permission there",
            )
        )
    if watch.method is Method.INOTIFY and is_remote(kind):
        checks.append(
            Check(
                subject,
                False,
                f"{kind}: what other hosts write gives no event here",
                "write 'method': 'auto' or 'poll'",
            )
        )
    if watch.kind is WatchKind.FILES and watch.processor is None:
        checks.append(_check_lease(watch, tree.sample))
    return checks, tree.directories, tree.whole


def _check_twins(watches: Iterable[Watch]) -> Iterator[Check]:
    """Tell of paths that lead to one directory, as a bind mount makes them."""
    seen: dict[tuple[int, int], str] = {}
    for watch in watches:
        if watch.processor_name:
            continue  # those may watch what they like
        with contextlib.suppress(OSError):
            status = timelimit.within(watch.path, partial(status_of_watch, watch))
            other = seen.setdefault((status.st_dev, status.st_ino), watch.path)
            if other != watch.path:
                detail = f"is the same directory as {other}"
                remedy = "remove one of the two from WATCHES"
                yield Check(f"watch {watch.path}", False, detail, remedy)


def _wrong_with(path: str) -> tuple[str, str] | None:
    """Return why a directory cannot be watched, and the remedy; None if it can."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return None
    except (FileNotFoundError, NotADirectoryError):
        later = "it is watched as soon as it is there"
        return "does not exist", f"create it, or correct WATCHES; {later}"
    except OSError as error:
        above = "give this user search permission on the directories above it"
        return f"cannot be reached ({error.strerror})", above
    return "is no directory", "correct WATCHES"


def _check_lease(watch: Watch, sample: str | None) -> Check:
    """Say how completeness will be found out; without leases it takes longer, but works."""
    subject = f"completeness in {watch.path}"
    if sample is None:
        return Check(subject, True, "no file there yet on which to try the lease test")
    if lease_test(sample):
        return Check(subject, True, "lease test: nothing that is open for writing is taken")
    settle = 10.0 if watch.settle is None else watch.settle
    return Check(
        subject,
        True,
        f"no lease test (not the owner of {sample}, or not on this file system): a file is taken "
        f"when it has not changed for {settle:g} s",
        "run as the files' owner or with CAP_LEASE, or choose 'settle'",
    )


def _check_limit(needed: int, whole: bool, limit: KernelLimit | None, others: int) -> Check:
    """Hold the directories against the limit, which is one for all processes of this user."""
    about = f"{'' if whole else 'more than '}{needed} needed"
    if limit is None:
        return Check("inotify", True, f"{about}; the kernel tells no limit")
    detail = f"{about}, {limit.number} allowed ({limit.setting})"
    if others and (needed + others) * 2 > limit.number:
        detail += f", {others} taken by other processes of user {os.geteuid()}"
    if needed + others >= limit.number or not whole:
        remedy = f"sysctl {limit.setting}={max(needed + others, limit.number) * 2}"
        return Check("inotify", False, detail, remedy)
    return Check("inotify", True, detail)


def needed_instances(config: Config) -> int:
    """Return how many inotify instances the daemon needs: one for each thread that watches.

    The main thread always has one; watches that may hang have threads of their own, one for each
    file system, and so have whole directories and each processor.
    """
    plain = [watch for watch in config.watches if watch.processor is None]
    groups = {(coverage.is_of_units(watch), hanging.points(watch.path)) for watch in plain}
    groups.add((False, frozenset()))
    return len(groups) + len(config.watches) - len(plain)


def _check_instances(wanted: int) -> Check:
    """Try to have as many inotify instances as the daemon needs."""
    missing = missing_instance(wanted)
    if missing is None:
        allowed = instance_limit()
        of = "" if allowed is None else f", {allowed.number} allowed ({allowed.setting})"
        return Check("inotify instances", True, f"{wanted} needed{of}")
    return Check("inotify instances", False, missing)


def _check_move(source: str, root: str) -> list[Check]:
    subject = f"move {source} to {root}"
    silence = _silence(subject, source) or _silence(subject, root)
    if silence is not None:
        return [silence]
    if not os.path.lexists(root):
        return [Check(subject, False, "the destination does not exist", "create or mount it")]
    if not os.path.isdir(root):
        return [Check(subject, False, "the destination is no directory", "correct MOVES")]
    found = []
    for directory, remedy in (
        (root, "give this user write permission on the destination"),
        (source, "give this user write permission: moving a file takes it out of its directory"),
    ):
        if os.path.isdir(directory) and not os.access(
            directory, os.W_OK | os.X_OK, effective_ids=True
        ):
            detail = f"{directory} cannot be written by user {os.geteuid()}"
            found.append(Check(subject, False, detail, remedy))
    if found:
        return found
    if not os.path.isdir(source):
        return [Check(subject, True, f"{source} does not exist yet")]
    return [Check(subject, True, _way(source, root))]


def _way(source: str, root: str) -> str:
    """Say how a file gets from the one to the other: a rename needs one mount, not one device."""
    if os.stat(source).st_dev != os.stat(root).st_dev:
        return "different file systems: files are copied, then removed"
    if mount_id(source) != mount_id(root):
        return (
            "same file system, but two mounts of it, which no rename crosses: files are copied, "
            "then removed; name both directories by paths through one mount to have them renamed"
        )
    return "same file system: files are renamed"


def _check_state(path: str) -> Check:
    found = _check_place("STATE_DIR", path)
    kind = filesystem_type(path)
    if found.ok and is_remote(kind):
        return Check(
            found.subject,
            False,
            f"on {kind}: the journal needs locks and fsync that can be relied on",
            "choose a local directory for STATE_DIR",
        )
    return found


def _check_place(setting: str, directory: str) -> Check:
    """Test whether the directory can be written, or made."""
    subject = f"{setting} {directory}"
    existing = directory
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        return Check(subject, False, f"{existing} is no directory", f"correct {setting}")
    if not _is_writable(existing):
        return Check(
            subject,
            False,
            f"{existing} cannot be written by user {os.geteuid()}",
            f"give this user write permission, or choose another {setting}",
        )
    return Check(subject, True, "writable" if existing == directory else "will be created")


def _is_writable(directory: str) -> bool:
    return os.access(directory, os.W_OK | os.X_OK, effective_ids=True)
