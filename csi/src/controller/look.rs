//! The calls that change nothing: ListVolumes, GetCapacity, ValidateVolumeCapabilities.

use super::Controller;
use crate::engines::Engines;
use crate::fault::{Asked, Fault, Problem};
use crate::placement;
use crate::proto::csi;
use crate::request::{MIB, capabilities, check_parameters, known_volume_id, no_volume, wishes};
use crate::volume::{Place, signed};
use crate::volumes::Volumes;
use understudy_core::units::VOLUME_MAX;

/// What a token of ListVolumes begins with; behind it stands the last handle that was listed, so
/// that volumes may come and go between two pages.
const TOKEN: &str = "after:";

impl<V: Volumes, E: Engines> Controller<V, E> {
    pub(super) async fn list(
        &self,
        request: &csi::ListVolumesRequest,
    ) -> Result<csi::ListVolumesResponse, Fault> {
        let most = usize::try_from(request.max_entries).map_err(|_| {
            Fault::invalid(format!("max_entries is {}: it can't be negative", request.max_entries))
        })?;
        let after = match request.starting_token.as_str() {
            "" => None,
            token => Some(token.strip_prefix(TOKEN).ok_or_else(|| {
                let text = format!(
                    "'{}' is no token of this driver: list from the start",
                    crate::call::shown(token)
                );
                Fault::new(Problem::Busy, text)
            })?),
        };
        let mut volumes = self.volumes.list().await?;
        volumes.retain(|volume| {
            // What is half deleted is gone for everybody else.
            !matches!(volume.place, Place::Unserved { .. })
                && after.is_none_or(|after| volume.handle.as_str() > after)
        });
        let mut next_token = String::new();
        if most > 0 && volumes.len() > most {
            volumes.truncate(most);
            if let Some(last) = volumes.last() {
                next_token = format!("{TOKEN}{}", last.handle);
            }
        }
        let entries = volumes.iter().map(|volume| csi::list_volumes_response::Entry {
            volume: Some(self.described(volume)),
        });
        Ok(csi::ListVolumesResponse { entries: entries.collect(), next_token })
    }

    /// The space for new volumes: of a node where one is named, else of all nodes that answer.
    pub(super) async fn capacity(
        &self,
        request: &csi::GetCapacityRequest,
    ) -> Result<csi::GetCapacityResponse, Fault> {
        let answer = |available: u64, largest: u64| csi::GetCapacityResponse {
            available_capacity: signed(available),
            maximum_volume_size: Some(signed(largest.min(VOLUME_MAX) / MIB * MIB)),
            minimum_volume_size: Some(signed(MIB)),
        };
        check_parameters(&request.parameters)?;
        let wanted = &request.volume_capabilities;
        if !wanted.is_empty() && capabilities(wanted).is_err() {
            // There is no room for what is never made.
            return Ok(answer(0, 0));
        }
        let wishes = request.accessible_topology.clone().and_then(|topology| {
            wishes(&csi::TopologyRequirement { preferred: vec![topology], requisite: Vec::new() })
        });
        let nodes = self.volumes.nodes().await?;
        let Ok(found) = placement::candidates(wishes.as_deref(), &nodes, &self.installation) else {
            return Ok(answer(0, 0));
        };
        let asking = found.iter().map(|node| self.space_of(node, Asked::Capacity));
        let answers = futures::future::join_all(asking).await;
        let (mut available, mut largest) = (0_u64, 0);
        for space in answers {
            match space {
                Ok(space) => {
                    available = available.saturating_add(space.available.0);
                    largest = largest.max(space.available.0);
                }
                // A node that is down has no room, among others; alone it is a failure.
                Err(fault) if found.len() == 1 => return Err(fault),
                Err(_) => {}
            }
        }
        Ok(answer(available, largest))
    }

    pub(super) async fn validate(
        &self,
        request: csi::ValidateVolumeCapabilitiesRequest,
    ) -> Result<csi::ValidateVolumeCapabilitiesResponse, Fault> {
        use csi::validate_volume_capabilities_response::Confirmed;
        if request.volume_id.is_empty() {
            return Err(Fault::invalid("volume_id is missing"));
        }
        if request.volume_capabilities.is_empty() {
            return Err(Fault::invalid("volume_capabilities is empty: say what to check"));
        }
        let handle = known_volume_id(&request.volume_id)?;
        self.volumes.get(&handle).await?.ok_or_else(|| no_volume(&handle))?;
        let checked = capabilities(&request.volume_capabilities)
            .and_then(|_| check_parameters(&request.parameters));
        Ok(match checked {
            Ok(()) => csi::ValidateVolumeCapabilitiesResponse {
                confirmed: Some(Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: request.mutable_parameters,
                }),
                message: String::new(),
            },
            Err(fault) => {
                csi::ValidateVolumeCapabilitiesResponse { confirmed: None, message: fault.message }
            }
        })
    }
}
