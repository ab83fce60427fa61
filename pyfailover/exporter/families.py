# SPDX-License-Identifier: GPL-2.0-or-later
"""What was seen, as metrics: their names, labels, types (docs/metrics.md).

Built anew for each scrape from values; nothing is kept here.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from pyfailover import __version__
from pyfailover.datapath.abi import ABI_VERSION
from pyfailover.exporter.looking import Seen
from pyfailover.report import GroupStatus, Health, SlaveStatus
from pyfailover.tally import BUCKETS

_GROUP = ("master",)
_SLAVE = ("master", "slave", "rank")

Sample = tuple[Sequence[str], float]


def families(seen: Seen) -> Iterator[Metric]:
    """All metrics of a look."""
    yield from _whole(seen)
    yield from _groups(seen)
    yield from _slaves(seen.groups)
    yield _drops(seen)
    if seen.controller is not None:
        yield from _controller(seen.controller, seen.groups)
    if seen.controller_pid is not None:
        pid = seen.controller_pid
        process = ProcessCollector(
            namespace="pyfailover_controller", pid=lambda: pid, registry=None
        )
        yield from process.collect()


def _gauge(
    name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]
) -> Metric:
    family = GaugeMetricFamily(f"pyfailover_{name}", text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _counter(
    name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]
) -> Metric:
    family = CounterMetricFamily(f"pyfailover_{name}", text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def duration(seconds: float) -> Metric:
    """What a look and its metrics took."""
    return _gauge(
        "scrape_duration_seconds",
        "Time that this collection took.",
        (),
        [((), seconds)],
    )


# --- the namespace -----------------------------------------------------------


def _whole(seen: Seen) -> Iterator[Metric]:
    about = (__version__, str(ABI_VERSION), platform.python_version())
    attached = [g for g in seen.groups if g.health is not Health.IDLE]
    loaded = all(g.carrier_test is not None for g in attached)
    yield _gauge(
        "build_info",
        "Version of pyfailover, of its maps, and of Python.",
        ("version", "abi", "python"),
        [(about, 1)],
    )
    yield _gauge(
        "controller_up",
        "Whether a controller answers.",
        (),
        [((), seen.controller is not None)],
    )
    yield _gauge(
        "datapath_up",
        "Whether the programs are loaded that groups are attached with.",
        (),
        [((), seen.readable and loaded)],
    )
    yield _gauge(
        "groups",
        "Groups that are attached, and declared ones that wait to be.",
        ("state",),
        [(("attached",), len(attached)), (("waiting",), len(seen.waiting))],
    )


# --- groups ------------------------------------------------------------------


def _of_groups(
    groups: Sequence[GroupStatus], value: Callable[[GroupStatus], float]
) -> Iterator[Sample]:
    return (((group.name,), value(group)) for group in groups)


def _groups(seen: Seen) -> Iterator[Metric]:
    groups = seen.groups
    yield _gauge(
        "group_info",
        "How a group is set up.",
        ("master", "side", "policy", "rx", "tc", "carrier_test"),
        ((_setup(group), 1) for group in groups),
    )
    yield _gauge(
        "group_health",
        "1 for the health that a group has, 0 for the others.",
        ("master", "health"),
        (
            ((group.name, health), group.health is health)
            for group in groups
            for health in Health
        ),
    )
    for name, text, value in (
        ("active_rank", "Rank of the active slave; -1: nobody is.", _active_rank),
        ("slaves", "Slaves that a group should have.", lambda g: len(g.slaves)),
        (
            "usable_slaves",
            "Slaves that could carry traffic now.",
            lambda g: sum(map(_usable, g.slaves)),
        ),
        (
            "degraded_since_timestamp_seconds",
            "When redundancy was lost, in unix time; 0: it is there.",
            lambda g: seen.degraded_since.get(g.name, 0),
        ),
        (
            "last_switch_timestamp_seconds",
            "When the active slave changed last, in unix time; 0: not known.",
            lambda g: seen.last_switch.get(g.name, 0),
        ),
        (
            "pinned",
            "Whether the operator holds the traffic on a slave.",
            lambda g: g.pinned is not None,
        ),
    ):
        yield _gauge(f"group_{name}", text, _GROUP, _of_groups(groups, value))
    yield _gauge(
        "group_trouble",
        "Whether the controller could not do something for a group.",
        _GROUP,
        [
            *_of_groups(groups, lambda g: g.trouble is not None),
            *(((name,), 1) for name in seen.waiting),
        ],
    )
    yield _counter(
        "group_transmit_link_local_packets",
        "Link-local packets from behind a wire master, which no slave carries.",
        _GROUP,
        _of_groups(groups, lambda g: g.counters.get("tx_link_local", 0)),
    )


def _setup(group: GroupStatus) -> Sequence[str]:
    test = "kernel" if group.carrier_test else "netlink"
    return (group.name, group.side, group.policy, group.rx, group.tc, test)


def _active_rank(group: GroupStatus) -> int:
    return next((slave.rank for slave in group.slaves if slave.active), -1)


def _usable(slave: SlaveStatus) -> bool:
    """The controller knows; without one what is ready could carry."""
    good = slave.ready if slave.verdict is None else slave.verdict == "usable"
    return good and slave.attached


# --- slaves ------------------------------------------------------------------


def _slaves(groups: Sequence[GroupStatus]) -> Iterator[Metric]:
    slaves = [
        ((group.name, slave.name, str(slave.rank)), slave)
        for group in groups
        for slave in group.slaves
    ]
    flags: tuple[tuple[str, str, Callable[[SlaveStatus], bool]], ...] = (
        ("active", "Whether a slave carries the traffic.", lambda s: s.active),
        ("up", "Whether it is set up (IFF_UP).", lambda s: s.up),
        ("carrier", "Whether it has carrier.", lambda s: s.carrier),
        ("ready", "Whether it is there, up and has carrier.", lambda s: s.ready),
        ("usable", "Whether it could carry traffic now.", _usable),
        (
            "damped",
            "Whether it is kept out for changing too often.",
            lambda s: s.verdict == "damped",
        ),
    )
    for name, text, flag in flags:
        samples = ((labels, flag(slave)) for labels, slave in slaves)
        yield _gauge(f"slave_{name}", text, _SLAVE, samples)
    for name, text, counter in (
        ("transmit_packets", "Packets sent by a slave.", "tx_packets"),
        ("transmit_bytes", "Bytes sent by a slave.", "tx_bytes"),
        ("receive_packets", "Packets taken from a slave.", "rx_packets"),
        ("receive_bytes", "Bytes taken from a slave.", "rx_bytes"),
        (
            "receive_grace_packets",
            "Packets taken from a slave shortly after it was left.",
            "rx_grace",
        ),
        (
            "receive_link_local_packets",
            "Link-local packets left to a slave itself.",
            "rx_link_local",
        ),
        ("left", "Times that a program left a slave by itself.", "left"),
    ):
        counted = ((labels, slave.counters.get(counter, 0)) for labels, slave in slaves)
        yield _counter(f"slave_{name}", text, _SLAVE, counted)
    yield _gauge(
        "attachment_present",
        "Whether our program is in place on an interface.",
        ("master", "interface"),
        (
            ((group.name, interface), attached)
            for group in groups
            for interface, attached in (
                (group.master or group.name, group.master_attached),
                *((slave.name, slave.attached) for slave in group.slaves),
            )
        ),
    )


def _drops(seen: Seen) -> Metric:
    def samples() -> Iterator[Sample]:
        for group in seen.groups:
            nobody = group.counters.get("tx_drop_no_active", 0)
            yield (group.name, "", "no_active"), nobody
            for slave in group.slaves:
                inactive = slave.counters.get("rx_drop_inactive", 0)
                yield (group.name, slave.name, "inactive"), inactive
                link = seen.dropped.get(slave.ifindex or 0, 0)
                yield (group.name, slave.name, "link"), link

    return _counter(
        "drops",
        "Packets dropped: nobody active, from an inactive slave, by a slave's device.",
        ("master", "slave", "reason"),
        samples(),
    )


# --- what only the controller knows ------------------------------------------


def _controller(
    said: Mapping[str, Any], groups: Sequence[GroupStatus]
) -> Iterator[Metric]:
    tally, counts = said["tally"], said["counts"]
    yield _gauge(
        "controller_start_time_seconds",
        "When the controller was started, in unix time.",
        (),
        [((), said["started"])],
    )
    yield _counter(
        "switches",
        "Changes of the active slave.",
        ("master", "from", "to", "reason", "decider"),
        (
            ((master, before or "none", after or "none", reason, by), count)
            for master, before, after, reason, by, count in tally["switches"]
        ),
    )
    yield _losses(tally["losses"])
    for name, text, found in (
        ("announcements", "Frames sent to announce a master.", tally["announcements"]),
        ("repairs", "Faults of others that were mended.", tally["repairs"]),
    ):
        yield _counter(
            name, text, _GROUP, (((g.name,), found.get(g.name, 0)) for g in groups)
        )
    for name, text, number in (
        (
            "announcement_errors",
            "Announcements that an interface refused.",
            tally["announcement_errors"],
        ),
        ("netlink_events", "Events read from the kernel.", counts["events"]),
        (
            "netlink_overruns",
            "Times that events were lost, and all was read anew.",
            counts["overruns"],
        ),
        ("resyncs", "Times that all was compared.", counts["resyncs"]),
    ):
        yield _counter(name, text, (), [((), number)])
    yield _gauge(
        "config_last_reload_successful",
        "Whether the files could be read the last time.",
        (),
        [((), tally["reload_ok"])],
    )
    yield _gauge(
        "config_last_reload_success_timestamp_seconds",
        "When the files were read last without an error, in unix time.",
        (),
        [((), tally["reloaded_at"])],
    )
    yield _counter(
        "reloads",
        "Times that the files were read again.",
        ("result",),
        (((result,), count) for result, count in tally["reloads"].items()),
    )
    yield _counter(
        "program_loads",
        "Compiled programs that were loaded, by where they came from.",
        ("source",),
        (((source,), count) for source, count in said["loads"].items()),
    )


def _losses(found: Mapping[str, Any]) -> Metric:
    family = HistogramMetricFamily(
        "pyfailover_switch_duration_seconds",
        "From a loss that is known to the word that moves the traffic.",
        labels=("decider",),
    )
    ends = [*(str(end) for end in BUCKETS), "+Inf"]
    for by, took in found.items():
        buckets = list(zip(ends, accumulate(took["counts"]), strict=True))
        family.add_metric((by,), buckets, took["sum_s"])
    return family
