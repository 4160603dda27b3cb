//! The node's calls: volume, paths, capability.

use std::path::{Path, PathBuf};

use understudy_core::engine::api::VolumeId;

use super::{Access, Capability, Sizes, known_volume_id, volume_id};
use crate::fault::Fault;
use crate::proto::csi;

/// NodeStageVolume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    /// Which volume.
    pub volume: VolumeId,
    /// Where its file system is mounted on this node.
    pub staging: PathBuf,
    /// As what it will be used.
    pub access: Access,
}

/// NodeUnstageVolume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unstage {
    /// Which volume; `None`: none of ours.
    pub volume: Option<VolumeId>,
    /// Where it was staged.
    pub staging: PathBuf,
}

/// NodePublishVolume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publish {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is staged.
    pub staging: PathBuf,
    /// Where the pod will find it.
    pub target: PathBuf,
    /// As what.
    pub capability: Capability,
    /// The pod may not write.
    pub read_only: bool,
}

/// NodeUnpublishVolume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unpublish {
    /// Where the pod found it.
    pub target: PathBuf,
}

/// NodeGetVolumeStats.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is published or staged.
    pub path: PathBuf,
}

/// NodeExpandVolume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expand {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is published or staged.
    pub path: PathBuf,
    /// How large it must be then.
    pub sizes: Sizes,
}

impl Stage {
    /// Parses the request.
    pub fn parse(request: &csi::NodeStageVolumeRequest) -> Result<Self, Fault> {
        present("volume_id", &request.volume_id)?;
        let staging = absolute("staging_target_path", &request.staging_target_path)?;
        let access = Capability::required(request.volume_capability.as_ref())?.access;
        Ok(Self { volume: known_volume_id(&request.volume_id)?, staging, access })
    }
}

impl Unstage {
    /// Parses the request.
    pub fn parse(request: &csi::NodeUnstageVolumeRequest) -> Result<Self, Fault> {
        let volume = volume_id(&request.volume_id)?;
        let staging = absolute("staging_target_path", &request.staging_target_path)?;
        Ok(Self { volume, staging })
    }
}

impl Publish {
    /// Parses the request.
    pub fn parse(request: &csi::NodePublishVolumeRequest) -> Result<Self, Fault> {
        present("volume_id", &request.volume_id)?;
        let target = absolute("target_path", &request.target_path)?;
        let capability = Capability::required(request.volume_capability.as_ref())?;
        if request.staging_target_path.is_empty() {
            return Err(Fault::wrong_state(
                "staging_target_path is missing: this driver stages volumes first",
            ));
        }
        let staging = absolute("staging_target_path", &request.staging_target_path)?;
        if request.readonly && capability.access == Access::Block {
            return Err(Fault::invalid(
                "a block device can't be published for reading only, for the kernel would not hold a pod to it: remove readOnly, or use volumeMode Filesystem",
            ));
        }
        let volume = known_volume_id(&request.volume_id)?;
        Ok(Self { volume, staging, target, capability, read_only: request.readonly })
    }
}

impl Unpublish {
    /// Parses the request.
    pub fn parse(request: &csi::NodeUnpublishVolumeRequest) -> Result<Self, Fault> {
        present("volume_id", &request.volume_id)?;
        Ok(Self { target: absolute("target_path", &request.target_path)? })
    }
}

impl Stats {
    /// Parses the request. A path that is none is one where no volume is.
    pub fn parse(request: &csi::NodeGetVolumeStatsRequest) -> Result<Self, Fault> {
        present("volume_id", &request.volume_id)?;
        present("volume_path", &request.volume_path)?;
        let path = PathBuf::from(&request.volume_path);
        Ok(Self { volume: known_volume_id(&request.volume_id)?, path })
    }
}

impl Expand {
    /// Parses the request.
    pub fn parse(request: &csi::NodeExpandVolumeRequest) -> Result<Self, Fault> {
        present("volume_id", &request.volume_id)?;
        present("volume_path", &request.volume_path)?;
        let sizes = Sizes::parse(request.capacity_range.as_ref())?;
        let path = PathBuf::from(&request.volume_path);
        Ok(Self { volume: known_volume_id(&request.volume_id)?, path, sizes })
    }
}

fn present(field: &str, text: &str) -> Result<(), Fault> {
    if text.is_empty() { Err(Fault::invalid(format!("{field} is missing"))) } else { Ok(()) }
}

/// A path that we will mount at or remove: from the root, and without a way back up.
fn absolute(field: &str, text: &str) -> Result<PathBuf, Fault> {
    present(field, text)?;
    let path = Path::new(text);
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs || path.parent().is_none() || text.contains('\0') {
        return Err(Fault::invalid(format!(
            "{field} '{}' is no absolute path without '..'",
            crate::call::shown(text)
        )));
    }
    // Without a slash at the end, as the kernel's list of mounts writes it.
    Ok(path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::super::capability::tests::{block, mount};
    use super::*;
    use crate::fault::Problem;
    use crate::proto::csi::volume_capability::access_mode::Mode;

    fn publish() -> csi::NodePublishVolumeRequest {
        csi::NodePublishVolumeRequest {
            volume_id: "vol-a".to_owned(),
            staging_target_path: "/s".to_owned(),
            target_path: "/t/a/".to_owned(),
            volume_capability: Some(mount("", &[])),
            ..csi::NodePublishVolumeRequest::default()
        }
    }

    #[test]
    fn paths_are_taken_as_the_kernel_writes_them() {
        assert_eq!(Publish::parse(&publish()).unwrap().target, Path::new("/t/a"));
        for bad in ["t", "/t/../etc", "/", "/a\0b"] {
            let request =
                csi::NodePublishVolumeRequest { target_path: bad.to_owned(), ..publish() };
            assert_eq!(Publish::parse(&request).unwrap_err().problem, Problem::Invalid, "{bad:?}");
        }
        assert!(Path::new("/t/a") == Publish::parse(&publish()).unwrap().target);
    }

    #[test]
    fn publishing_without_a_staging_path_is_a_wrong_state() {
        let request =
            csi::NodePublishVolumeRequest { staging_target_path: String::new(), ..publish() };
        assert_eq!(Publish::parse(&request).unwrap_err().problem, Problem::WrongState);
    }

    #[test]
    fn a_missing_field_is_named() {
        for (request, field) in [
            (csi::NodePublishVolumeRequest { volume_id: String::new(), ..publish() }, "volume_id"),
            (
                csi::NodePublishVolumeRequest { target_path: String::new(), ..publish() },
                "target_path",
            ),
            (
                csi::NodePublishVolumeRequest { volume_capability: None, ..publish() },
                "volume_capability",
            ),
        ] {
            let fault = Publish::parse(&request).unwrap_err();
            assert_eq!(fault.problem, Problem::Invalid);
            assert!(fault.message.contains(field), "{fault}");
        }
    }

    #[test]
    fn reading_only_is_for_directories() {
        let mut request = csi::NodePublishVolumeRequest { readonly: true, ..publish() };
        assert!(Publish::parse(&request).unwrap().read_only);
        request.volume_capability = Some(block(Mode::SingleNodeWriter));
        assert!(Publish::parse(&request).unwrap_err().message.contains("readOnly"));
    }

    #[test]
    fn an_id_that_no_volume_of_ours_can_have_is_not_found() {
        let stats = |id: &str| {
            Stats::parse(&csi::NodeGetVolumeStatsRequest {
                volume_id: id.to_owned(),
                volume_path: "some/path".to_owned(),
                ..csi::NodeGetVolumeStatsRequest::default()
            })
        };
        assert!(stats("vol-a").is_ok());
        for foreign in ["Vol", "a.b", "../x", &"a".repeat(64)] {
            assert_eq!(stats(foreign).unwrap_err().problem, Problem::NotFound, "{foreign}");
        }
        let unstage = Unstage::parse(&csi::NodeUnstageVolumeRequest {
            volume_id: "../x".to_owned(),
            staging_target_path: "/s".to_owned(),
        });
        assert_eq!(unstage.unwrap().volume, None);
    }
}
