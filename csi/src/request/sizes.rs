//! The size of a volume: whole MiB, between the wish and the limit.

use understudy_core::engine::api::ByteLen;
use understudy_core::units::VOLUME_MAX;

use crate::fault::{Fault, Problem};
use crate::proto::csi::CapacityRange;

/// The unit of a volume's size: also the least. Partition tools and file systems like whole MiB, and
/// every size that Kubernetes users write is one.
pub const MIB: u64 = 1 << 20;

/// The size of a volume whose maker had no wish.
pub const DEFAULT_SIZE: u64 = 1 << 30;

/// What sizes a request takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sizes {
    /// At least this.
    pub at_least: Option<u64>,
    /// At most this.
    pub at_most: Option<u64>,
}

impl Sizes {
    /// Parses a range; none is no wish.
    pub fn parse(range: Option<&CapacityRange>) -> Result<Self, Fault> {
        let Some(range) = range else { return Ok(Self::default()) };
        let field = |name: &str, bytes: i64| match u64::try_from(bytes) {
            Ok(0) => Ok(None),
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(Fault::invalid(format!(
                "capacity_range.{name} is {bytes}: a size can't be negative"
            ))),
        };
        let at_least = field("required_bytes", range.required_bytes)?;
        let at_most = field("limit_bytes", range.limit_bytes)?;
        if let (Some(least), Some(most)) = (at_least, at_most)
            && most < least
        {
            return Err(Fault::invalid(format!(
                "capacity_range.limit_bytes ({most}) is below required_bytes ({least})"
            )));
        }
        Ok(Self { at_least, at_most })
    }

    /// Whether a volume of this size will do.
    pub fn allow(self, size: ByteLen) -> bool {
        self.at_least.is_none_or(|least| least <= size.0)
            && self.at_most.is_none_or(|most| size.0 <= most)
    }

    /// The size of a new volume.
    pub fn choose(self) -> Result<ByteLen, Fault> {
        let wish = self.at_least.unwrap_or_else(|| {
            // Without a wish, as much as is usual and allowed.
            self.at_most.map_or(DEFAULT_SIZE, |most| DEFAULT_SIZE.min(most / MIB * MIB))
        });
        let out_of_range = |text: String| Err(Fault::new(Problem::OutOfRange, text));
        if wish > VOLUME_MAX {
            return out_of_range(format!(
                "a volume of {wish} bytes is too large: {VOLUME_MAX} (64 TiB) is the most"
            ));
        }
        let size = wish.max(1).div_ceil(MIB) * MIB;
        match self.at_most {
            Some(most) if most < size => out_of_range(format!(
                "no size fits: volumes have whole MiB, at least {size} bytes here, and limit_bytes is {most}"
            )),
            Some(_) | None => Ok(ByteLen(size)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(required_bytes: i64, limit_bytes: i64) -> Result<Sizes, Fault> {
        Sizes::parse(Some(&CapacityRange { required_bytes, limit_bytes }))
    }

    #[test]
    fn sizes_are_rounded_up_to_whole_mebibytes() {
        for (wish, size) in [
            (0, DEFAULT_SIZE),
            (1, MIB),
            (1 << 20, MIB),
            ((1 << 20) + 1, 2 * MIB),
            (10_000_000_000, 9537 * MIB),
            (64 << 40, 64 << 40),
        ] {
            assert_eq!(sizes(wish, 0).unwrap().choose().unwrap(), ByteLen(size), "{wish}");
        }
        assert_eq!(Sizes::parse(None).unwrap().choose().unwrap(), ByteLen(DEFAULT_SIZE));
    }

    #[test]
    fn without_a_wish_a_limit_below_the_default_is_kept() {
        assert_eq!(sizes(0, (5 << 20) + 7).unwrap().choose().unwrap(), ByteLen(5 * MIB));
    }

    #[test]
    fn what_fits_no_size_is_out_of_range() {
        for (wish, limit) in
            [((64 << 40) + 1, 0), (1, 1000), (0, 1000), ((5 << 20) + 1, (6 << 20) - 1)]
        {
            let fault = sizes(wish, limit).unwrap().choose().unwrap_err();
            assert_eq!(fault.problem, Problem::OutOfRange, "{wish} {limit}");
        }
    }

    #[test]
    fn negative_and_inverted_ranges_are_refused() {
        for (wish, limit) in [(-1, 0), (0, -1), (2 << 20, 1 << 20)] {
            assert_eq!(sizes(wish, limit).unwrap_err().problem, Problem::Invalid, "{wish} {limit}");
        }
    }

    #[test]
    fn a_volume_that_is_there_will_do_between_wish_and_limit() {
        let range = sizes(2 << 20, 4 << 20).unwrap();
        assert!(range.allow(ByteLen(2 * MIB)) && range.allow(ByteLen(4 * MIB)));
        assert!(!range.allow(ByteLen(MIB)) && !range.allow(ByteLen(5 * MIB)));
        assert!(Sizes::default().allow(ByteLen(MIB)));
    }
}
