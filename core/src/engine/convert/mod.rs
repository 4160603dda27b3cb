//! Between the wire's messages and the types of [`super::api`]: parsed once, here, or refused.
//!
//! ```text
//!   proto request ──parse──► api request        Invalid { field, problem } ─► INVALID_ARGUMENT
//!   api request   ──write──► proto request
//!   proto answer  ◄────────► api status
//! ```
//!
//! Every `INVALID_ARGUMENT` of the engine is born here. Its text names the field and the remedy.

mod request;
mod status;

pub(super) use request::{generation, name, policy, size};

use std::fmt;

/// A field that is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// The path of the field in the message: `members[2].size_bytes`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Invalid {
    fn new(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Invalid {}

/// Parses `text` of the field called `field`.
fn parse<T>(field: &str, text: &str) -> Result<T, Invalid>
where
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    text.parse().map_err(|e| Invalid::new(field, e))
}
