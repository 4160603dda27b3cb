//! CreateVolume: a name becomes a handle, a topology a list of wishes.
//!
//! ```text
//!   "pvc-1f0c…"             ─► pvc-1f0c…          a name that can be a handle is one
//!   "Prod Database (copy)"  ─► pvc-<hash>         always the same; the name is kept beside it
//! ```

use std::collections::HashMap;

use understudy_core::engine::api::VolumeId;

use super::{Capability, Sizes, capabilities, is_handle};
use crate::call::shown;
use crate::fault::Fault;
use crate::proto::csi::{CreateVolumeRequest, TopologyRequirement};
use crate::{TOPOLOGY_INSTALLATION, TOPOLOGY_NODE};

/// The longest name that the interface allows.
const NAME_MAX: usize = 128;

/// The parameters of a `StorageClass` that this driver takes, and those that the provisioner adds.
pub const PARAMETERS: [&str; 4] = [
    FS_TYPE,
    "csi.storage.k8s.io/pvc/name",
    "csi.storage.k8s.io/pvc/namespace",
    "csi.storage.k8s.io/pv/name",
];

const FS_TYPE: &str = "csi.storage.k8s.io/fstype";

/// A place where the first replica may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The installation; `None`: not said.
    pub installation: Option<String>,
    /// The node; `None`: any of the installation.
    pub node: Option<String>,
}

/// A volume to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Create {
    /// What the caller calls it.
    pub name: String,
    /// What we call it.
    pub handle: VolumeId,
    /// How large.
    pub sizes: Sizes,
    /// How it will be used; all are supported.
    pub capabilities: Vec<Capability>,
    /// Where, best first; `None`: anywhere.
    pub wishes: Option<Vec<Wish>>,
}

impl Create {
    /// Parses the request.
    pub fn parse(request: &CreateVolumeRequest) -> Result<Self, Fault> {
        let name = request.name.clone();
        if name.is_empty() {
            return Err(Fault::invalid("name is missing"));
        }
        if name.len() > NAME_MAX {
            let text = format!("the name has {} bytes: {NAME_MAX} is the most", name.len());
            return Err(Fault::invalid(text));
        }
        let capabilities = capabilities(&request.volume_capabilities)?;
        check_parameters(&request.parameters)?;
        if let Some(parameter) = least(&request.mutable_parameters) {
            return Err(Fault::invalid(format!(
                "there are no parameters that can be changed, such as '{}': use no VolumeAttributesClass",
                shown(parameter)
            )));
        }
        if request.volume_content_source.is_some() {
            return Err(Fault::invalid(
                "a volume can't be made from a snapshot or another volume yet: remove dataSource, and copy the data from a pod",
            ));
        }
        Ok(Self {
            handle: handle(&name)?,
            name,
            sizes: Sizes::parse(request.capacity_range.as_ref())?,
            capabilities,
            wishes: request.accessibility_requirements.as_ref().and_then(wishes),
        })
    }
}

/// Refuses parameters that mean nothing here: a misspelt one must not be lost.
#[allow(clippy::implicit_hasher, reason = "the messages' maps have this one")]
pub fn check_parameters(parameters: &HashMap<String, String>) -> Result<(), Fault> {
    let mut unknown: Vec<&str> = parameters.keys().map(String::as_str).collect();
    unknown.retain(|name| !PARAMETERS.contains(name));
    unknown.sort_unstable();
    if let Some(name) = unknown.first() {
        return Err(Fault::invalid(format!(
            "the parameter '{}' is not known: remove it from the StorageClass (there is {FS_TYPE})",
            shown(name)
        )));
    }
    match parameters.get(FS_TYPE).map(String::as_str) {
        None | Some("" | "ext4") => Ok(()),
        Some(other) => Err(Fault::invalid(format!(
            "the parameter {FS_TYPE} is '{}': only ext4 is supported",
            shown(other)
        ))),
    }
}

fn least(parameters: &HashMap<String, String>) -> Option<&str> {
    parameters.keys().map(String::as_str).min()
}

/// Where a volume is wished for, best first; `None`: nobody said.
pub fn wishes(requirement: &TopologyRequirement) -> Option<Vec<Wish>> {
    let all = requirement.preferred.iter().chain(&requirement.requisite);
    let wishes: Vec<Wish> = all
        .map(|topology| Wish {
            installation: topology.segments.get(TOPOLOGY_INSTALLATION).cloned(),
            node: topology.segments.get(TOPOLOGY_NODE).cloned(),
        })
        .collect();
    (!wishes.is_empty()).then_some(wishes)
}

fn handle(name: &str) -> Result<VolumeId, Fault> {
    let text = if is_handle(name) {
        name.to_owned()
    } else {
        format!("pvc-{:032x}", hash(name.as_bytes()))
    };
    text.parse().map_err(|e| Fault::internal(format!("'{text}' can't be a volume's name: {e}")))
}

/// FNV-1a with 128 bits. It need not withstand attacks: the name is kept beside the handle, and a
/// volume of another name is never taken for the one that is asked for.
fn hash(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::super::capability::tests::block;
    use super::*;
    use crate::proto::csi::volume_capability::access_mode::Mode;
    use crate::proto::csi::{Topology, VolumeContentSource};

    fn request(name: &str) -> CreateVolumeRequest {
        CreateVolumeRequest {
            name: name.to_owned(),
            volume_capabilities: vec![block(Mode::SingleNodeWriter)],
            ..CreateVolumeRequest::default()
        }
    }

    fn segments(pairs: &[(&str, &str)]) -> Topology {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Topology { segments: pairs.collect() }
    }

    #[test]
    fn a_name_that_can_be_a_handle_is_one() {
        let name = "pvc-9c5fb6a4-6a53-4d0b-9a7e-0c2f9f3f0a11";
        assert_eq!(Create::parse(&request(name)).unwrap().handle.to_string(), name);
    }

    #[test]
    fn any_other_name_has_always_the_same_handle_of_its_own() {
        let long = "a".repeat(128);
        let names =
            ["Prod Database (copy)", "a.b", "-a", "a-", "ÄÖ", "sanity/volume", long.as_str()];
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            let handle = Create::parse(&request(name)).unwrap().handle.to_string();
            assert!(is_handle(&handle) && handle.starts_with("pvc-"), "{name}: {handle}");
            assert!(seen.insert(handle));
        }
        // Written down: a volume must be found again by later versions.
        let handle = Create::parse(&request("a.b")).unwrap().handle.to_string();
        assert_eq!(handle, "pvc-a68d62d5038b5822836dbc7978175ee4");
    }

    #[test]
    fn names_that_are_missing_or_too_long_are_refused() {
        for name in ["", &"a".repeat(129)] {
            assert!(Create::parse(&request(name)).is_err());
        }
    }

    #[test]
    fn an_unknown_parameter_is_refused_by_its_name() {
        let mut request = request("a");
        for parameter in PARAMETERS {
            request.parameters.insert(parameter.to_owned(), "ext4".to_owned());
        }
        assert!(Create::parse(&request).is_ok());
        request.parameters.insert("replicas".to_owned(), "3".to_owned());
        let fault = Create::parse(&request).unwrap_err();
        assert!(fault.message.contains("'replicas'"), "{fault}");
    }

    #[test]
    fn another_file_system_as_parameter_is_refused() {
        let mut request = request("a");
        request.parameters.insert(FS_TYPE.to_owned(), "btrfs".to_owned());
        assert!(Create::parse(&request).unwrap_err().message.contains("btrfs"));
    }

    #[test]
    fn sources_and_changeable_parameters_are_refused_not_ignored() {
        let mut from_snapshot = request("a");
        from_snapshot.volume_content_source = Some(VolumeContentSource::default());
        assert!(Create::parse(&from_snapshot).unwrap_err().message.contains("dataSource"));
        let mut class = request("a");
        class.mutable_parameters.insert("iops".to_owned(), "7".to_owned());
        assert!(Create::parse(&class).unwrap_err().message.contains("'iops'"));
    }

    #[test]
    fn what_is_preferred_comes_before_what_is_allowed() {
        let mut request = request("a");
        request.accessibility_requirements = Some(TopologyRequirement {
            requisite: vec![segments(&[(TOPOLOGY_INSTALLATION, "prod")])],
            preferred: vec![segments(&[
                (TOPOLOGY_NODE, "node-b"),
                (TOPOLOGY_INSTALLATION, "prod"),
            ])],
        });
        let wishes = Create::parse(&request).unwrap().wishes.unwrap();
        assert_eq!(wishes[0].node.as_deref(), Some("node-b"));
        assert_eq!(wishes[1], Wish { installation: Some("prod".to_owned()), node: None });
        request.accessibility_requirements = Some(TopologyRequirement::default());
        assert_eq!(Create::parse(&request).unwrap().wishes, None);
    }
}
