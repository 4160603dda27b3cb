//! The bodies of the targets, which lie in `tests/src/fuzz`: by path, since the rest of that package,
//! its harness, would have to be built for nothing.

#[path = "../../src/fuzz/mod.rs"]
pub mod fuzz;
#[path = "../../src/random.rs"]
pub mod random;
