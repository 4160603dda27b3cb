//! Requests, in both directions.

use std::time::Duration;

use super::{Invalid, parse};
use crate::engine::api::{
    ByteLen, Failover, Generation, GroupId, Member, Mode, Policy, Role, Start, UndoFull, VolumeId,
};
use crate::engine::proto;
use crate::units::{GROUP_VOLUMES_MAX, SECTOR, VOLUME_MAX};

/// The bounds of a policy: below, a group would only work on itself; above, it would not be bounded.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_hours(24));
const UNDO_LIMIT: (u64, u64) = (1 << 20, 1 << 40);
const WINDOW: (u64, u64) = (64 << 10, 1 << 30);
const ACTIVE_LIMIT: (u64, u64) = (1 << 20, 1 << 40);
const RESYNC: (u64, u64) = (64 << 10, 1 << 40);
const MAX_DELAY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_mins(1));

/// The name of a volume or group.
pub(in crate::engine) fn name(field: &str, text: &str) -> Result<VolumeId, Invalid> {
    parse(field, text)
}

/// A generation that a group can have.
pub(in crate::engine) fn generation(field: &str, text: &str) -> Result<Generation, Invalid> {
    let generation: Generation = parse(field, text)?;
    if generation.number == 0 {
        return Err(Invalid::new(field, "its number is 0, which means none: count from 1"));
    }
    Ok(generation)
}

/// A length that a replica can have.
pub(in crate::engine) fn size(field: &str, bytes: u64) -> Result<ByteLen, Invalid> {
    if bytes == 0 || bytes > VOLUME_MAX || !bytes.is_multiple_of(SECTOR) {
        let problem = format!("{bytes} is no size: use a multiple of {SECTOR} up to {VOLUME_MAX}");
        return Err(Invalid::new(field, problem));
    }
    Ok(ByteLen(bytes))
}

impl TryFrom<proto::CreateReplicaRequest> for Member {
    type Error = Invalid;

    fn try_from(r: proto::CreateReplicaRequest) -> Result<Self, Invalid> {
        Ok(Self { volume: name("volume", &r.volume)?, size: size("size_bytes", r.size_bytes)? })
    }
}

impl TryFrom<proto::StartRequest> for Start {
    type Error = Invalid;

    fn try_from(r: proto::StartRequest) -> Result<Self, Invalid> {
        let role = match r.role() {
            proto::Role::Primary => Role::Primary,
            proto::Role::Secondary => Role::Secondary,
            proto::Role::Unspecified => {
                return Err(Invalid::new("role", "say ROLE_PRIMARY or ROLE_SECONDARY"));
            }
        };
        let peer = match r.peer_address.as_str() {
            "" => None,
            text => Some(parse("peer_address", text)?),
        };
        if role == Role::Primary && r.inbound {
            let problem = "only a secondary takes an NBD client's writes: leave it false here";
            return Err(Invalid::new("inbound", problem));
        }
        if role == Role::Secondary && r.adopt {
            let problem = "only a primary takes volumes over: leave it false here";
            return Err(Invalid::new("adopt", problem));
        }
        Ok(Self {
            group: name("group", &r.group)?,
            generation: generation("generation", &r.generation)?,
            role,
            members: members(r.members)?,
            peer,
            policy: policy(r.policy.unwrap_or_default())?,
            inbound: r.inbound,
            adopt: r.adopt,
        })
    }
}

fn members(list: Vec<proto::Member>) -> Result<Vec<Member>, Invalid> {
    if list.is_empty() || list.len() > GROUP_VOLUMES_MAX {
        let problem = format!("{} volumes: a group has 1 to {GROUP_VOLUMES_MAX}", list.len());
        return Err(Invalid::new("members", problem));
    }
    let mut out: Vec<Member> = Vec::with_capacity(list.len());
    for (i, m) in list.into_iter().enumerate() {
        let volume = name(&format!("members[{i}].volume"), &m.volume)?;
        if out.iter().any(|o| o.volume == volume) {
            let problem = format!("'{volume}' stands in the list twice: name each volume once");
            return Err(Invalid::new(format!("members[{i}].volume"), problem));
        }
        out.push(Member { volume, size: size(&format!("members[{i}].size_bytes"), m.size_bytes)? });
    }
    Ok(out)
}

/// A policy within its bounds.
pub(in crate::engine) fn policy(p: proto::Policy) -> Result<Policy, Invalid> {
    let mode = match p.mode() {
        proto::Mode::Checkpointed | proto::Mode::Unspecified => Mode::Checkpointed,
        proto::Mode::Synchronous => Mode::Synchronous,
    };
    let undo_full = match p.undo_full() {
        proto::UndoFull::KeepCheckpoint | proto::UndoFull::Unspecified => UndoFull::KeepCheckpoint,
        proto::UndoFull::DropCheckpoint => UndoFull::DropCheckpoint,
    };
    let resync_floor = bytes("policy.resync_floor_bytes", p.resync_floor_bytes, RESYNC)?;
    let resync_ceiling = bytes("policy.resync_ceiling_bytes", p.resync_ceiling_bytes, RESYNC)?;
    if let (Some(floor), Some(ceiling)) = (resync_floor, resync_ceiling)
        && floor > ceiling
    {
        let problem = format!("{} is below the floor, {}", ceiling.0, floor.0);
        return Err(Invalid::new("policy.resync_ceiling_bytes", problem));
    }
    Ok(Policy {
        mode,
        checkpoint_interval: millis(
            "policy.checkpoint_interval_ms",
            p.checkpoint_interval_ms,
            INTERVAL,
        )?,
        undo_limit: bytes("policy.undo_limit_bytes", p.undo_limit_bytes, UNDO_LIMIT)?,
        window: bytes("policy.window_bytes", p.window_bytes, WINDOW)?,
        max_delay: millis("policy.max_delay_ms", p.max_delay_ms, MAX_DELAY)?,
        undo_full,
        active_limit: bytes("policy.active_limit_bytes", p.active_limit_bytes, ACTIVE_LIMIT)?,
        resync_floor,
        resync_ceiling,
    })
}

fn millis(
    field: &str,
    n: u64,
    (min, max): (Duration, Duration),
) -> Result<Option<Duration>, Invalid> {
    let d = Duration::from_millis(n);
    if n != 0 && !(min..=max).contains(&d) {
        let (min, max) = (min.as_millis(), max.as_millis());
        return Err(Invalid::new(field, format!("{n} is out of bounds: use {min} to {max}, or 0")));
    }
    Ok((n != 0).then_some(d))
}

fn bytes(field: &str, n: u64, (min, max): (u64, u64)) -> Result<Option<ByteLen>, Invalid> {
    if n != 0 && !(min..=max).contains(&n) {
        return Err(Invalid::new(field, format!("{n} is out of bounds: use {min} to {max}, or 0")));
    }
    Ok((n != 0).then_some(ByteLen(n)))
}

impl TryFrom<proto::FailoverRequest> for Failover {
    type Error = Invalid;

    fn try_from(r: proto::FailoverRequest) -> Result<Self, Invalid> {
        let replace = generation("generation", &r.generation)?;
        let new = generation("new_generation", &r.new_generation)?;
        if new.number <= replace.number || new.id == replace.id {
            let problem = format!(
                "{new} does not come after {replace}: use a higher number and a new random id"
            );
            return Err(Invalid::new("new_generation", problem));
        }
        Ok(Self { group: name("group", &r.group)?, replace, new, keep_active: r.keep_active })
    }
}

/// The requests that name a group and its generation and nothing else to check.
macro_rules! addressed {
    ($($request:ident),*) => {$(
        impl proto::$request {
            /// Whom it is for.
            pub(in crate::engine) fn target(&self) -> Result<(GroupId, Generation), Invalid> {
                Ok((name("group", &self.group)?, generation("generation", &self.generation)?))
            }
        }
    )*};
}
addressed!(SetPolicyRequest, CheckpointRequest, StopRequest, GetErrorRequest);

impl From<&Start> for proto::StartRequest {
    fn from(s: &Start) -> Self {
        let role = match s.role {
            Role::Primary => proto::Role::Primary,
            Role::Secondary => proto::Role::Secondary,
        };
        let member =
            |m: &Member| proto::Member { volume: m.volume.to_string(), size_bytes: m.size.0 };
        Self {
            group: s.group.to_string(),
            generation: s.generation.to_string(),
            role: role.into(),
            members: s.members.iter().map(member).collect(),
            peer_address: s.peer.as_ref().map(ToString::to_string).unwrap_or_default(),
            policy: Some((&s.policy).into()),
            inbound: s.inbound,
            adopt: s.adopt,
        }
    }
}

impl From<&Policy> for proto::Policy {
    fn from(p: &Policy) -> Self {
        let mode = match p.mode {
            Mode::Checkpointed => proto::Mode::Checkpointed,
            Mode::Synchronous => proto::Mode::Synchronous,
        };
        Self {
            mode: mode.into(),
            checkpoint_interval_ms: in_millis(p.checkpoint_interval),
            undo_limit_bytes: p.undo_limit.unwrap_or_default().0,
            window_bytes: p.window.unwrap_or_default().0,
            max_delay_ms: in_millis(p.max_delay),
            undo_full: match p.undo_full {
                UndoFull::KeepCheckpoint => proto::UndoFull::KeepCheckpoint,
                UndoFull::DropCheckpoint => proto::UndoFull::DropCheckpoint,
            }
            .into(),
            active_limit_bytes: p.active_limit.unwrap_or_default().0,
            resync_floor_bytes: p.resync_floor.unwrap_or_default().0,
            resync_ceiling_bytes: p.resync_ceiling.unwrap_or_default().0,
        }
    }
}

/// Rounded up, so that a fraction does not become the 0 that means something else.
fn in_millis(d: Option<Duration>) -> u64 {
    let ms = d.unwrap_or_default().as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).unwrap_or(u64::MAX)
}

impl From<&Failover> for proto::FailoverRequest {
    fn from(f: &Failover) -> Self {
        Self {
            group: f.group.to_string(),
            generation: f.replace.to_string(),
            new_generation: f.new.to_string(),
            keep_active: f.keep_active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> proto::StartRequest {
        proto::StartRequest {
            group: "vm".into(),
            generation: "1-00c0ffee00c0ffee".into(),
            role: proto::Role::Primary.into(),
            members: vec![proto::Member { volume: "disk".into(), size_bytes: 1 << 20 }],
            peer_address: "tcp:10.0.0.2:7001".into(),
            policy: None,
            inbound: false,
            adopt: false,
        }
    }

    #[test]
    fn a_start_survives_the_way_over_the_wire() {
        let start = Start::try_from(good()).unwrap();
        assert_eq!(Start::try_from(proto::StartRequest::from(&start)).unwrap(), start);
    }

    #[test]
    fn each_bad_field_of_a_start_is_named_with_its_remedy() {
        type Spoil = fn(&mut proto::StartRequest);
        let member = |r: &mut proto::StartRequest| r.members.push(r.members[0].clone());
        let cases: &[(&str, Spoil)] = &[
            ("group", |r| r.group = "../etc".into()),
            ("generation", |r| r.generation = "1".into()),
            ("generation", |r| r.generation = "0-00c0ffee00c0ffee".into()),
            ("role", |r| r.role = 77),
            ("members", |r| r.members.clear()),
            ("members[1].volume", member),
            ("members[0].volume", |r| r.members[0].volume = "a/b".into()),
            ("members[0].size_bytes", |r| r.members[0].size_bytes = 1000),
            ("members[0].size_bytes", |r| r.members[0].size_bytes = u64::MAX),
            ("peer_address", |r| r.peer_address = "10.0.0.2:7001".into()),
            ("peer_address", |r| r.peer_address = "tls:a/b@10.0.0.2:7001".into()),
            ("inbound", |r| r.inbound = true),
            ("policy.window_bytes", |r| {
                r.policy = Some(proto::Policy { window_bytes: 1, ..Default::default() });
            }),
            ("policy.max_delay_ms", |r| {
                r.policy = Some(proto::Policy { max_delay_ms: u64::MAX, ..Default::default() });
            }),
        ];
        for (field, spoil) in cases {
            let mut request = good();
            spoil(&mut request);
            let error = Start::try_from(request).unwrap_err();
            assert_eq!(&error.field, field, "{error}");
            assert!(error.problem.len() > 20, "no remedy: {error}");
        }
    }

    #[test]
    fn a_failover_must_go_to_a_later_generation() {
        let request = |new: &str| proto::FailoverRequest {
            group: "vm".into(),
            generation: "3-00c0ffee00c0ffee".into(),
            new_generation: new.into(),
            keep_active: false,
        };
        assert!(Failover::try_from(request("5-00c0ffee00c0ffef")).is_ok());
        assert!(Failover::try_from(request("3-00c0ffee00c0ffef")).is_err());
        assert!(Failover::try_from(request("4-00c0ffee00c0ffee")).is_err());
    }
}
