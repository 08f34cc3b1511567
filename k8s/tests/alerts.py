"""For each alert: worlds in which it fires, and worlds in which it does not.

A case is (when, {series: values}); values are in promtool's notation, one each minute.
"""

GC_LED = {
    'windlass_leader{job="windlass-gc", instance="a"}': "1+0x60",
    'windlass_leader{job="windlass-gc", instance="b"}': "0+0x60",
}
JOBS = ("api", "observer", "wc", "ttl", "gc", "agent")


def all_up():
    return {'up{job="windlass-%s", instance="a"}' % job: "1+0x20" for job in JOBS}


def all_but(job, values):
    """Every service is up but one, which is so."""
    return {series: values if job in series else "1+0x20" for series in all_up()}


def led(of, *by_replica):
    """How many shards there are, and how many each replica leads."""
    series = {}
    for n, values in enumerate(by_replica):
        labels = f'{{job="windlass-wc", instance="{n}"}}'
        series |= {f"windlass_shards{labels}": of, f"windlass_shards_led{labels}": values}
    return series


def ticks(ok, error):
    return {
        'windlass_tick_duration_seconds_count{job="windlass-wc", result="ok"}': ok,
        'windlass_tick_duration_seconds_count{job="windlass-wc", result="error"}': error,
    }


def answers(code, values, instance="a"):
    labels = f'job="windlass-api", instance="{instance}", service="s", method="m", code="{code}"'
    return {"windlass_rpc_requests_total{%s}" % labels: values}


def waits(fast, slow):
    """Connections that came within a second, and all of them."""
    series = 'windlass_db_pool_wait_seconds_bucket{job="windlass-api", le="%s"}'
    return {series % "1": fast, series % "5": slow, series % "+Inf": slow}


FIRES = {
    "WindlassServiceDown": [("5m", {'up{job="windlass-api", instance="a"}': "1 0+0x10"})],
    "WindlassServiceAbsent": [
        ("10m", {s: v for s, v in all_up().items() if job not in s}) for job in JOBS
    ] + [
        # There, but down; and gone from discovery.
        ("10m", all_but("wc", "0+0x20")),
        ("12m", all_but("wc", "1 1 stale _x20")),
    ],
    "WindlassNotReady": [
        ("10m", {'windlass_ready{job="windlass-api", instance="a", check="postgres"}': "0+0x20"}),
    ],
    "WindlassNoLeader": [
        ("5m", led("1+0x10", "0+0x10", "0+0x10")),
        # One shard of four is nobody's.
        ("5m", led("4+0x10", "2+0x10", "1+0x10")),
    ],
    "WindlassTicksFailing": [("15m", ticks("5+0x20", "0+6x20"))],
    "WindlassTicksStale": [
        ("5m", {'windlass_tick_last_success_timestamp_seconds{job="windlass-observer", shard="0"}': "0+0x10"}),
        # One shard hangs, the other goes on.
        (
            "5m",
            {
                'windlass_tick_last_success_timestamp_seconds{job="windlass-wc", shard="0"}': "0+60x10",
                'windlass_tick_last_success_timestamp_seconds{job="windlass-wc", shard="1"}': "0+0x10",
            },
        ),
    ],
    "WindlassRpcErrors": [
        ("15m", answers("INTERNAL", "0+1x20")),
        # A burst, and then nothing: the first ones, and later ones.
        ("5m", answers("INTERNAL", "_ _ 30+0x20")),
        ("5m", answers("UNKNOWN", "_ _ 1+0x20")),
        ("35m", answers("INTERNAL", "_ _ 30+0x29 60+0x20")),
        # A second replica has its first, with the first one's long over.
        ("35m", answers("INTERNAL", "30+0x60") | answers("INTERNAL", "_x32 1+0x20", "b")),
    ],
    "WindlassPoolExhausted": [("15m", waits("0+1x20", "0+60x20"))],
    "WindlassHintsLost": [
        ("20m", {'windlass_hints_lost_total{job="windlass-api", channel="wc:wake"}': "0+1x30"}),
    ],
    "WindlassObservationStale": [
        (
            "5m",
            {
                'windlass_host_observed_timestamp_seconds{instance="a", host="h"}': "0+0x10",
                'windlass_host_observed_timestamp_seconds{instance="b", host="h"}': "30+0x10",
            },
        ),
    ],
    "WindlassStoreUnreachable": [("5m", {'windlass_agent_store_reachable{instance="a"}': "0+0x10"})],
    "WindlassStoreListingStale": [
        ("20m", {'windlass_agent_store_listed_timestamp_seconds{instance="a"}': "0+0x30"}),
    ],
    "WindlassJobsQueued": [
        ("20m", {'windlass_agent_jobs_queued{instance="a", kind="archive"}': "3+0x30"}),
    ],
    "WindlassAgentStaleEpoch": [("10m", {'windlass_wc_stale_epoch_total{instance="a"}': "0+1x20"})],
    "WindlassOperationsFailing": [
        ("16m", {'windlass_operation_failures_total{operation="STARTING", reason="CrashLoop"}': "0+1x20"}),
        ("16m", {'windlass_operation_failures_total{operation="STARTING", reason="CrashLoop"}': "0 0 0 5+0x20"}),
    ],
    "WindlassWorkspacesInError": [
        (
            "10m",
            {
                'windlass_workspaces{job="windlass-wc", instance="a", phase="ERROR", shard="0"}': "0+0x20",
                'windlass_workspaces{job="windlass-wc", instance="a", phase="ERROR", shard="1"}': "2+0x20",
            },
        ),
    ],
    "WindlassCheckpointLate": [
        ("10m", {'windlass_checkpoints_late{job="windlass-wc", instance="a", shard="0"}': "1+0x20"}),
    ],
    "WindlassGcStopped": [
        ("5m", GC_LED | {'windlass_gc_refused{job="windlass-gc", instance="a"}': "1+0x10"}),
    ],
    "WindlassGcNotRun": [
        ("13h", {'windlass_tick_last_success_timestamp_seconds{job="windlass-gc"}': "0+0x800"}),
    ],
}

QUIET = {
    "WindlassServiceDown": [
        ("5m", {'up{job="windlass-api", instance="a"}': "1+0x10"}),
        ("5m", {'up{job="another", instance="a"}': "0+0x10"}),
        # A restart is an ordinary event.
        ("3m", {'up{job="windlass-api", instance="a"}': "1 0 1 1"}),
    ],
    "WindlassServiceAbsent": [
        ("10m", all_up()),
        # A rolling update of one replica, and of the only one.
        ("10m", all_up() | {'up{job="windlass-wc", instance="b"}': "0+0x20"}),
        ("10m", all_but("wc", "1 1 0 0 1+0x20")),
    ],
    "WindlassNotReady": [
        ("10m", {'windlass_ready{job="windlass-api", instance="a", check="postgres"}': "1+0x20"}),
        ("3m", {'windlass_ready{job="windlass-api", instance="a", check="postgres"}': "0+0x20"}),
    ],
    "WindlassNoLeader": [
        ("5m", led("1+0x10", "1+0x10", "0+0x10")),
        ("5m", led("4+0x10", "2+0x10", "2+0x10")),
        # One is killed, and the other has its shards within the lease.
        ("5m", led("4+0x10", "2 2 stale", "2 2 4+0x10")),
    ],
    "WindlassTicksFailing": [
        ("15m", ticks("0+6x20", "0+0x20")),
        # Some fail, as when a host goes away; others do not.
        ("15m", ticks("0+6x20", "0+6x20")),
    ],
    "WindlassTicksStale": [
        ("5m", {'windlass_tick_last_success_timestamp_seconds{job="windlass-observer"}': "0+60x10"}),
        # The follower's is old; the leader's counts.
        (
            "5m",
            {
                'windlass_tick_last_success_timestamp_seconds{job="windlass-wc", instance="a"}': "0+60x10",
                'windlass_tick_last_success_timestamp_seconds{job="windlass-wc", instance="b"}': "0+0x10",
            },
        ),
        ("5m", {'windlass_tick_last_success_timestamp_seconds{job="windlass-gc"}': "0+0x10"}),
    ],
    "WindlassRpcErrors": [
        ("15m", answers("NOT_FOUND", "0+1x20")),
        ("5m", answers("NOT_FOUND", "_ _ 30+0x20")),
        ("20m", answers("INTERNAL", "_ _ 30+0x40")),
    ],
    "WindlassPoolExhausted": [("15m", waits("0+60x20", "0+60x20"))],
    "WindlassHintsLost": [
        ("20m", {'windlass_hints_lost_total{job="windlass-api", channel="wc:wake"}': "7+0x30"}),
    ],
    "WindlassObservationStale": [
        (
            "5m",
            {
                'windlass_host_observed_timestamp_seconds{instance="a", host="h"}': "0+0x10",
                'windlass_host_observed_timestamp_seconds{instance="b", host="h"}': "0+60x10",
            },
        ),
    ],
    "WindlassStoreUnreachable": [
        ("5m", {'windlass_agent_store_reachable{instance="a"}': "1+0x10"}),
    ],
    "WindlassStoreListingStale": [
        ("20m", {'windlass_agent_store_listed_timestamp_seconds{instance="a"}': "0+60x30"}),
    ],
    "WindlassJobsQueued": [
        ("20m", {'windlass_agent_jobs_queued{instance="a", kind="archive"}': "0+0x30"}),
        ("20m", {'windlass_agent_jobs_queued{instance="a", kind="archive"}': "3+0x9 0 3+0x20"}),
    ],
    "WindlassAgentStaleEpoch": [("15m", {'windlass_wc_stale_epoch_total{instance="a"}': "4+0x20"})],
    "WindlassOperationsFailing": [
        ("20m", {'windlass_operation_failures_total{operation="STARTING", reason="CrashLoop"}': "0+0x10 2+0x20"}),
    ],
    "WindlassWorkspacesInError": [
        ("10m", {'windlass_workspaces{job="windlass-wc", instance="a", phase="ERROR", shard="0"}': "0+0x20"}),
        ("10m", {'windlass_workspaces{job="windlass-wc", instance="a", phase="RUNNING", shard="0"}': "2+0x20"}),
    ],
    "WindlassCheckpointLate": [
        ("10m", {'windlass_checkpoints_late{job="windlass-wc", instance="a", shard="0"}': "0+0x20"}),
    ],
    "WindlassGcStopped": [
        ("5m", GC_LED | {'windlass_gc_refused{job="windlass-gc", instance="a"}': "0+0x10"}),
        ("5m", GC_LED | {'windlass_gc_refused{job="windlass-gc", instance="b"}': "1+0x10"}),
    ],
    "WindlassGcNotRun": [
        ("13h", {'windlass_tick_last_success_timestamp_seconds{job="windlass-gc"}': "0+60x800"}),
    ],
}
