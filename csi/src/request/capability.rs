//! How a volume is to be used: as a device or a directory, and by whom.

use crate::fault::Fault;
use crate::mount::MountOptions;
use crate::proto::csi::VolumeCapability;
use crate::proto::csi::volume_capability::AccessType;
use crate::proto::csi::volume_capability::access_mode::Mode;

/// The only file system; also what is made when none is asked for.
const FILE_SYSTEM: &str = "ext4";

/// As what a pod sees the volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// A raw block device.
    Block,
    /// A directory: an ext4 on it, mounted with these options.
    Mount(MountOptions),
}

/// How a volume is to be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capability {
    /// As what.
    pub access: Access,
    /// By one pod only (`ReadWriteOncePod`): a second target path is refused.
    pub single_writer: bool,
}

impl Capability {
    /// The capability of a request that must have one.
    pub fn required(capability: Option<&VolumeCapability>) -> Result<Self, Fault> {
        let missing = || Fault::invalid("volume_capability is missing");
        Self::parse(capability.ok_or_else(missing)?)
    }

    /// Parses a capability that this driver supports.
    pub fn parse(capability: &VolumeCapability) -> Result<Self, Fault> {
        let access = match &capability.access_type {
            None => {
                return Err(Fault::invalid(
                    "volume_capability.access_type is missing: ask for block or mount",
                ));
            }
            Some(AccessType::Block(_)) => Access::Block,
            Some(AccessType::Mount(mount)) => {
                if !mount.fs_type.is_empty() && mount.fs_type != FILE_SYSTEM {
                    return Err(Fault::invalid(format!(
                        "the file system '{}' is not supported: ask for {FILE_SYSTEM}, or use volumeMode Block and make it yourself",
                        crate::call::shown(&mount.fs_type)
                    )));
                }
                Access::Mount(MountOptions::parse(&mount.mount_flags)?)
            }
        };
        let mode = capability.access_mode.as_ref().map_or(0, |mode| mode.mode);
        Ok(Self { access, single_writer: single_writer(mode)? })
    }
}

/// Whether an access mode means one pod; those of several nodes are refused.
fn single_writer(mode: i32) -> Result<bool, Fault> {
    match Mode::try_from(mode) {
        Ok(Mode::SingleNodeWriter | Mode::SingleNodeMultiWriter) => Ok(false),
        Ok(Mode::SingleNodeSingleWriter) => Ok(true),
        Ok(
            Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter,
        ) => Err(Fault::invalid(
            "a volume can be used on one node at a time, so neither ReadWriteMany nor ReadOnlyMany: ask for ReadWriteOnce (a virtual machine on it can't be migrated live yet)",
        )),
        Ok(Mode::SingleNodeReaderOnly) => Err(Fault::invalid(
            "a volume that is never written is of no use: ask for ReadWriteOnce",
        )),
        Ok(Mode::Unknown) => Err(Fault::invalid(
            "volume_capability.access_mode is missing: ask for SINGLE_NODE_WRITER",
        )),
        Err(_) => Err(Fault::invalid(format!(
            "the access mode {mode} is not known to this driver: ask for SINGLE_NODE_WRITER"
        ))),
    }
}

/// The capabilities of a request that must have at least one.
pub fn capabilities(list: &[VolumeCapability]) -> Result<Vec<Capability>, Fault> {
    if list.is_empty() {
        return Err(Fault::invalid(
            "volume_capabilities is empty: say how the volume will be used",
        ));
    }
    list.iter().map(Capability::parse).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::proto::csi::volume_capability::{AccessMode, BlockVolume, MountVolume};

    /// A block volume in this mode.
    pub(crate) fn block(mode: Mode) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(AccessType::Block(BlockVolume {})),
        }
    }

    /// A directory.
    pub(crate) fn mount(fs_type: &str, flags: &[&str]) -> VolumeCapability {
        let mount_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        VolumeCapability {
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: fs_type.to_owned(),
                mount_flags,
                volume_mount_group: String::new(),
            })),
        }
    }

    #[test]
    fn one_node_at_a_time_and_no_mode_of_several() {
        for (mode, single) in [
            (Mode::SingleNodeWriter, Some(false)),
            (Mode::SingleNodeMultiWriter, Some(false)),
            (Mode::SingleNodeSingleWriter, Some(true)),
            (Mode::SingleNodeReaderOnly, None),
            (Mode::MultiNodeReaderOnly, None),
            (Mode::MultiNodeSingleWriter, None),
            (Mode::MultiNodeMultiWriter, None),
            (Mode::Unknown, None),
        ] {
            let parsed = Capability::parse(&block(mode));
            assert_eq!(parsed.as_ref().ok().map(|c| c.single_writer), single, "{mode:?}");
            if let Err(fault) = parsed {
                assert!(fault.message.contains("ask for"), "{mode:?}: {fault}");
            }
        }
        let mut unheard_of = block(Mode::SingleNodeWriter);
        unheard_of.access_mode = Some(AccessMode { mode: 99 });
        assert!(Capability::parse(&unheard_of).unwrap_err().message.contains("99"));
    }

    #[test]
    fn the_refusal_of_read_write_many_says_what_to_ask_for() {
        let fault = Capability::parse(&block(Mode::MultiNodeMultiWriter)).unwrap_err();
        assert!(fault.message.contains("ReadWriteOnce"), "{fault}");
        assert!(fault.message.contains("migrated live"), "{fault}");
    }

    #[test]
    fn only_ext4_is_made() {
        for fs_type in ["", "ext4"] {
            assert!(Capability::parse(&mount(fs_type, &[])).is_ok());
        }
        let fault = Capability::parse(&mount("xfs", &[])).unwrap_err();
        assert!(fault.message.contains("'xfs'") && fault.message.contains("ext4"), "{fault}");
    }

    #[test]
    fn a_capability_without_a_type_and_an_empty_list_are_refused() {
        let mut nothing = block(Mode::SingleNodeWriter);
        nothing.access_type = None;
        assert!(Capability::parse(&nothing).is_err());
        assert!(capabilities(&[]).is_err());
        assert!(Capability::required(None).is_err());
    }
}
