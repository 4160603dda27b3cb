//! Texts with a unit, parsed once at the edge: `256Mi`, `500ms`.

use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A generation as text: its number, a dash, 16 hexadecimal digits.
pub const GENERATION_PATTERN: &str = "^[0-9]{1,19}-[0-9a-f]{16}$";
/// The name of a node.
pub const NODE_PATTERN: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
const BYTES_PATTERN: &str = "^[0-9]{1,15}(Ki|Mi|Gi|Ti)?$";
const DURATION_PATTERN: &str = "^[0-9]{1,9}(ms|s|m|h)$";

/// A text that is not what it should be; says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(String);

/// A number of bytes as people write it: digits, then Ki, Mi, Gi, Ti or nothing.
///
/// The text stays as it was written, so that writing an object back changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize {
    text: String,
    bytes: u64,
}

impl ByteSize {
    /// Its value in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `count` MiB; for defaults.
    pub fn mebibytes(count: u32) -> Self {
        Self { text: format!("{count}Mi"), bytes: u64::from(count) << 20 }
    }
}

impl TryFrom<String> for ByteSize {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        let bad = || {
            TextError(format!(
                "'{text}' is no size: write digits and Ki, Mi, Gi or Ti, as in 256Mi"
            ))
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit {
            "" => 1,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        let bytes = number.checked_mul(factor).ok_or_else(bad)?;
        Ok(Self { text, bytes })
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.text
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": BYTES_PATTERN, "maxLength": 20 })
    }
}

/// A span of time as people write it: digits, then ms, s, m or h.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeSpan {
    text: String,
    millis: u64,
}

impl TimeSpan {
    /// Its length.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    /// `count` seconds; for defaults.
    pub fn seconds(count: u32) -> Self {
        Self { text: format!("{count}s"), millis: u64::from(count) * 1000 }
    }
}

impl TryFrom<String> for TimeSpan {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        let bad = || {
            TextError(format!(
                "'{text}' is no time span: write digits and ms, s, m or h, as in 500ms"
            ))
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        let millis = number.checked_mul(factor).ok_or_else(bad)?;
        Ok(Self { text, millis })
    }
}

impl From<TimeSpan> for String {
    fn from(span: TimeSpan) -> Self {
        span.text
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl JsonSchema for TimeSpan {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TimeSpan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": DURATION_PATTERN, "maxLength": 12 })
    }
}

/// Conditions as a list that server-side apply merges by type.
pub(crate) fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = <Vec<Condition>>::json_schema(generator);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["type"]));
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_units_and_kept_as_written() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64Ki", 65536), ("256Mi", 256 << 20)] {
            let size = ByteSize::try_from(text.to_owned()).unwrap();
            assert_eq!(size.bytes(), bytes);
            assert_eq!(String::from(size), text);
        }
        for bad in ["", "Mi", "1.5Gi", "1M", "-1", "1 Gi", "99999999999999Ti"] {
            assert!(ByteSize::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn time_spans_need_a_unit() {
        let read = |t: &str| TimeSpan::try_from(t.to_owned()).map(|s| s.duration());
        assert_eq!(read("100ms").unwrap(), Duration::from_millis(100));
        assert_eq!(read("2m").unwrap(), Duration::from_mins(2));
        for bad in ["1", "", "s", "1.5s", "-1s", "1d"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
