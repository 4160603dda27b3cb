//! A sample as OpenMetrics text.

use std::fmt::Error;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Sample;
use super::families::{COUNTERS, GAUGES, Metric, number};
use crate::overlay::{Role, Stage};
use crate::replication::{GroupStatus, LinkState};
use crate::units::u64_of;

type Float = Gauge<f64, AtomicU64>;
type Count = Counter<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfGroup {
    group: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    group: String,
    role: &'static str,
    stage: &'static str,
    link: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Purpose {
    purpose: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// The whole answer to a scrape.
pub(crate) fn text(sample: &Sample) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("understudy");
    engine(&mut registry, sample);
    let states = Family::<State, Float>::default();
    for g in &sample.groups {
        let (role, stage) = role_and_stage(&g.status);
        let link = link(g.status.link);
        let group = g.group.to_string();
        states.get_or_create(&State { group, role, stage, link }).set(1.0);
    }
    registry.register(
        "group_state",
        "1 for what the group is here: role, stage, and how it stands with its peer",
        states,
    );
    for metric in GAUGES {
        let family = Family::<OfGroup, Float>::default();
        for (labels, value) in values(sample, metric) {
            family.get_or_create(&labels).set(value);
        }
        register(&mut registry, metric, family);
    }
    for metric in COUNTERS {
        let family = Family::<OfGroup, Count>::default();
        for (labels, value) in values(sample, metric) {
            family.get_or_create(&labels).inc_by(value);
        }
        register(&mut registry, metric, family);
    }
    let mut out = String::new();
    encode(&mut out, &registry)?;
    Ok(out)
}

/// What is of no group.
fn engine(registry: &mut Registry, sample: &Sample) {
    let build = Family::<Build, Float>::default();
    build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1.0);
    registry.register("build", "1, with the version", build);
    let mut gauge = |name, help, unit: Option<Unit>, value: f64| {
        let g = Float::default();
        g.set(value);
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, g),
            None => registry.register(name, help, g),
        }
    };
    if let Ok(c) = &sample.capacity {
        gauge("pool_size", "Space of the pool", Some(Unit::Bytes), number(c.total.0));
        let free = number(c.available.0);
        gauge("pool_available", "What a new replica could take of it", Some(Unit::Bytes), free);
    }
    gauge("replicas", "Replicas in the pool", None, number(u64_of(sample.replicas)));
    let damaged = number(u64_of(sample.damaged));
    gauge("damaged", "Groups and replicas that can't be opened", None, damaged);
    let refused = Family::<Purpose, Count>::default();
    for (purpose, n) in &sample.refused {
        refused.get_or_create(&Purpose { purpose }).inc_by(number(*n));
    }
    registry.register(
        "refused_connections",
        "Connections refused: too many, or of nobody who may come in",
        refused,
    );
}

fn values<'a>(sample: &'a Sample, metric: &'a Metric) -> impl Iterator<Item = (OfGroup, f64)> + 'a {
    sample
        .groups
        .iter()
        .filter_map(|g| Some((OfGroup { group: g.group.to_string() }, (metric.value)(g)?)))
}

fn register(
    registry: &mut Registry,
    metric: &Metric,
    family: impl prometheus_client::registry::Metric,
) {
    match &metric.unit {
        Some(unit) => {
            registry.register_with_unit(metric.name, metric.help, unit.clone(), family);
        }
        None => registry.register(metric.name, metric.help, family),
    }
}

fn role_and_stage(s: &GroupStatus) -> (&'static str, &'static str) {
    let (role, stage) = s.role.unwrap_or_default();
    let role = match role {
        Role::None => "none",
        Role::Primary => "primary",
        Role::Secondary => "secondary",
    };
    let stage = match stage {
        Stage::None => "none",
        Stage::Running => "running",
        Stage::Failover => "failover",
        Stage::FailoverFailed => "failover-failed",
        Stage::Done => "done",
    };
    (role, stage)
}

fn link(s: LinkState) -> &'static str {
    match s {
        LinkState::Solo => "solo",
        LinkState::Syncing => "syncing",
        LinkState::Running => "running",
        LinkState::Degraded => "degraded",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GroupSample, Refused};
    use super::*;
    use crate::engine::api::{ByteLen, Capacity, Uuid};

    fn sample() -> Sample {
        let mut status = GroupStatus {
            role: Some((Role::Primary, Stage::Running)),
            link: LinkState::Degraded,
            missing: 4096,
            ..GroupStatus::default()
        };
        status.counts.writes = 7;
        status.counts.delayed_micros = 1_500_000;
        let refused = Refused::default();
        refused.watch("links");
        refused.one("NBD");
        Sample {
            groups: vec![GroupSample { group: "vm-1".parse().unwrap(), status, clients: 1 }],
            damaged: 0,
            replicas: 2,
            capacity: Ok(Capacity {
                total: ByteLen(1 << 30),
                available: ByteLen(1 << 20),
                pool: Uuid(1),
            }),
            refused: refused.all(),
        }
    }

    #[test]
    fn a_scrape_names_each_group_with_units_and_ends_as_the_format_asks() {
        let text = text(&sample()).unwrap();
        for line in [
            "understudy_group_state{group=\"vm-1\",role=\"primary\",stage=\"running\",link=\"degraded\"} 1.0",
            "understudy_group_missing_bytes{group=\"vm-1\"} 4096.0",
            "understudy_group_writes_total{group=\"vm-1\"} 7.0",
            "understudy_group_delay_seconds_total{group=\"vm-1\"} 1.5",
            "understudy_pool_available_bytes 1048576.0",
            "understudy_refused_connections_total{purpose=\"NBD\"} 1.0",
            "understudy_refused_connections_total{purpose=\"links\"} 0.0",
            "# UNIT understudy_group_missing_bytes bytes",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
        // There is no checkpoint yet, so no time of one either.
        assert!(!text.contains("group_checkpoint_cut_timestamp_seconds{"), "{text}");
    }

    #[test]
    fn every_metric_has_its_own_name_and_a_help() {
        let all: Vec<&str> = GAUGES.iter().chain(COUNTERS).map(|m| m.name).collect();
        let unique: std::collections::BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(unique.len(), all.len());
        let guide = include_str!("../../../../docs/metrics.md");
        for m in GAUGES.iter().chain(COUNTERS) {
            assert!(!m.help.is_empty() && !m.help.ends_with('.'), "{}", m.name);
            assert!(guide.contains(m.name), "docs/metrics.md does not name {}", m.name);
        }
    }
}
