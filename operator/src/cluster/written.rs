//! What was just written, until the watch has caught up with it.
//!
//! Versions of objects of one kind can be compared as numbers. Should that once be wrong, the cost is
//! a conflict, for a change always names the exact version that it was made for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::{Resource, ResourceExt};

/// Own writes of a kind, by name.
#[derive(Debug)]
pub struct Written<K>(Mutex<BTreeMap<String, Write<K>>>);

#[derive(Debug)]
struct Write<K> {
    version: u64,
    /// `None`: it was deleted.
    object: Option<Arc<K>>,
}

impl<K> Default for Written<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

fn version_of<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0)
}

impl<K: Resource> Written<K> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Write<K>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newer one of what the cache has and what was written.
    pub fn newest(&self, name: &str, cached: Option<Arc<K>>) -> Option<Arc<K>> {
        let mut all = self.lock();
        let Some(write) = all.get(name) else { return cached };
        let caught_up = match (&cached, &write.object) {
            (Some(cached), Some(_)) => version_of(cached.as_ref()) >= write.version,
            (Some(cached), None) => version_of(cached.as_ref()) > write.version,
            (None, None) => true,
            (None, Some(_)) => false,
        };
        if caught_up {
            all.remove(name);
            return cached;
        }
        write.object.clone()
    }

    /// Notes what the API server answered to a write, or to a look.
    pub fn note(&self, object: K) {
        let write = Write { version: version_of(&object), object: Some(Arc::new(object)) };
        let name = write.object.as_ref().map(|o| o.name_any()).unwrap_or_default();
        self.lock().insert(name, write);
    }

    /// Notes that it was deleted when it had this version.
    pub fn note_deleted(&self, name: &str, version: &str) {
        let version = version.parse().unwrap_or(0);
        self.lock().insert(name.to_owned(), Write { version, object: None });
    }

    /// What a look found missing is not there, whatever was written before.
    pub fn forget(&self, name: &str) {
        self.lock().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some("x".to_owned());
        object.metadata.resource_version = Some(version.to_owned());
        object
    }

    fn newest(written: &Written<ConfigMap>, cached: Option<&str>) -> Option<String> {
        let found = written.newest("x", cached.map(|v| Arc::new(object(v))));
        found.and_then(|o| o.resource_version())
    }

    #[test]
    fn an_own_write_counts_until_the_cache_has_it_or_a_later_one() {
        let written = Written::default();
        assert_eq!(newest(&written, Some("9")).as_deref(), Some("9"));
        written.note(object("10"));
        assert_eq!(newest(&written, Some("9")).as_deref(), Some("10"));
        assert_eq!(newest(&written, None).as_deref(), Some("10"));
        assert_eq!(newest(&written, Some("11")).as_deref(), Some("11"));
        assert_eq!(newest(&written, Some("10")).as_deref(), Some("10"), "forgotten by now");
        written.note_deleted("x", "11");
        assert_eq!(newest(&written, Some("11")), None);
        assert_eq!(newest(&written, Some("12")).as_deref(), Some("12"), "made anew");
    }
}
