//! The API server's refusals, in the words of those who asked.

use crate::store::StoreError;

/// A call that the API server did not do, or that did not reach it.
#[derive(Debug, thiserror::Error)]
#[error("{action} {object} failed: {reason}")]
pub struct ApiError {
    /// What was tried.
    pub action: &'static str,
    /// With what.
    pub object: String,
    /// Why, as the API server says it.
    pub reason: String,
}

impl ApiError {
    /// An error of a call.
    pub fn new(action: &'static str, object: impl Into<String>, error: &kube::Error) -> Self {
        let reason = match error {
            kube::Error::Api(status) if status.is_forbidden() => {
                format!(
                    "{}: the chart's roles grant what is needed; are they applied?",
                    status.message
                )
            }
            kube::Error::Api(status) => status.message.clone(),
            other => sources(other),
        };
        Self { action, object: object.into(), reason }
    }
}

impl From<ApiError> for StoreError {
    fn from(error: ApiError) -> Self {
        Self::Failed { action: error.action, path: error.object, source: error.reason.into() }
    }
}

/// Whether the object is not there.
pub fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the object was not as it was looked at.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// An error with its causes: the outermost often says little.
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}
