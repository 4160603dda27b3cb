//! Between the wire's messages and the types of [`super::api`].

use std::time::Duration;

use super::api::{
    Address, Attach, ByteLen, Device, DeviceState, EngineAddresses, Generation, IoCounters,
    VolumeId,
};
use super::proto;
use crate::engine::convert::{self, Invalid};

/// A volume's name.
pub(super) fn volume(text: &str) -> Result<VolumeId, Invalid> {
    convert::name("volume", text)
}

/// A generation; number 0 is none.
pub(super) fn generation(text: &str) -> Result<Generation, Invalid> {
    convert::generation("generation", text)
}

fn address(field: &str, text: &str) -> Result<Address, Invalid> {
    text.parse().map_err(|problem: crate::units::ParseError| Invalid {
        field: field.to_owned(),
        problem: problem.to_string(),
    })
}

impl From<&Attach> for proto::AttachRequest {
    fn from(a: &Attach) -> Self {
        Self {
            volume: a.volume.to_string(),
            generation: a.generation.to_string(),
            engine_api: a.engine.api.to_string(),
            engine_nbd: a.engine.nbd.to_string(),
            read_only: a.read_only,
        }
    }
}

impl TryFrom<proto::AttachRequest> for Attach {
    type Error = Invalid;

    fn try_from(r: proto::AttachRequest) -> Result<Self, Invalid> {
        Ok(Self {
            volume: volume(&r.volume)?,
            generation: generation(&r.generation)?,
            engine: EngineAddresses {
                api: address("engine_api", &r.engine_api)?,
                nbd: address("engine_nbd", &r.engine_nbd)?,
            },
            read_only: r.read_only,
        })
    }
}

impl From<Device> for proto::Device {
    fn from(d: Device) -> Self {
        let state = match d.state {
            DeviceState::Serving => proto::DeviceState::Serving,
            DeviceState::Waiting => proto::DeviceState::Waiting,
            DeviceState::Gone => proto::DeviceState::Gone,
        };
        Self {
            volume: d.volume.to_string(),
            generation: d.generation.to_string(),
            path: d.path.display().to_string(),
            size_bytes: d.size.0,
            read_only: d.read_only,
            state: state.into(),
            error: d.error.unwrap_or_default(),
            session: d.session.unwrap_or_default(),
            reconnects: d.reconnects,
            longest_stall_us: u64::try_from(d.longest_stall.as_micros()).unwrap_or(u64::MAX),
            io: Some(d.io.into()),
            engine_api: d.engine.api.to_string(),
            engine_nbd: d.engine.nbd.to_string(),
        }
    }
}

impl TryFrom<proto::Device> for Device {
    type Error = Invalid;

    fn try_from(d: proto::Device) -> Result<Self, Invalid> {
        let state = match d.state() {
            proto::DeviceState::Serving => DeviceState::Serving,
            proto::DeviceState::Waiting => DeviceState::Waiting,
            proto::DeviceState::Gone => DeviceState::Gone,
            proto::DeviceState::Unspecified => {
                let problem = "a state of a newer version: update this side".to_owned();
                return Err(Invalid { field: "state".to_owned(), problem });
            }
        };
        Ok(Self {
            volume: volume(&d.volume)?,
            generation: generation(&d.generation)?,
            path: d.path.into(),
            size: ByteLen(d.size_bytes),
            read_only: d.read_only,
            state,
            error: (!d.error.is_empty()).then_some(d.error),
            session: (d.session != 0).then_some(d.session),
            reconnects: d.reconnects,
            longest_stall: Duration::from_micros(d.longest_stall_us),
            io: d.io.unwrap_or_default().into(),
            engine: EngineAddresses {
                api: address("engine_api", &d.engine_api)?,
                nbd: address("engine_nbd", &d.engine_nbd)?,
            },
        })
    }
}

impl From<IoCounters> for proto::IoCounters {
    fn from(c: IoCounters) -> Self {
        Self {
            reads: c.reads,
            read_bytes: c.read_bytes,
            writes: c.writes,
            written_bytes: c.written_bytes,
            flushes: c.flushes,
            discards: c.discards,
            errors: c.errors,
            in_flight: c.in_flight,
        }
    }
}

impl From<proto::IoCounters> for IoCounters {
    fn from(c: proto::IoCounters) -> Self {
        Self {
            reads: c.reads,
            read_bytes: c.read_bytes,
            writes: c.writes,
            written_bytes: c.written_bytes,
            flushes: c.flushes,
            discards: c.discards,
            errors: c.errors,
            in_flight: c.in_flight,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device {
            volume: "pvc-1".parse().unwrap(),
            generation: "3-00c0ffee00c0ffee".parse().unwrap(),
            path: "/dev/loop7".into(),
            size: ByteLen(1 << 30),
            read_only: false,
            state: DeviceState::Waiting,
            error: Some("the engine is away".to_owned()),
            session: Some(4),
            reconnects: 2,
            longest_stall: Duration::from_millis(250),
            io: IoCounters { reads: 1, in_flight: 3, ..IoCounters::default() },
            engine: EngineAddresses {
                api: "unix:/run/a".parse().unwrap(),
                nbd: "unix:/run/b".parse().unwrap(),
            },
        }
    }

    #[test]
    fn a_device_reads_back_as_it_was_sent() {
        let sent = device();
        assert_eq!(Device::try_from(proto::Device::from(sent.clone())).unwrap(), sent);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_name_of_the_field() {
        let good = proto::AttachRequest {
            volume: "pvc-1".to_owned(),
            generation: "3-00c0ffee00c0ffee".to_owned(),
            engine_api: "unix:/run/a".to_owned(),
            engine_nbd: "unix:/run/b".to_owned(),
            read_only: false,
        };
        Attach::try_from(good.clone()).unwrap();
        for (field, bad) in [
            ("volume", proto::AttachRequest { volume: "../x".to_owned(), ..good.clone() }),
            ("generation", proto::AttachRequest { generation: "7".to_owned(), ..good.clone() }),
            (
                "generation",
                proto::AttachRequest {
                    generation: "0-00c0ffee00c0ffee".to_owned(),
                    ..good.clone()
                },
            ),
            ("engine_nbd", proto::AttachRequest { engine_nbd: String::new(), ..good.clone() }),
        ] {
            assert_eq!(Attach::try_from(bad).unwrap_err().field, field);
        }
    }
}
