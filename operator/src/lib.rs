//! The operator: from what a platform team asks for to what the engines do.
//!
//! ```text
//!   manifests ─► Desired ─┐
//!                         ├─► decide (pure) ─► Plan { actions, status } ─► apply
//!   engines, store ─► Observed                                             │
//!        ▲─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A pass looks at everything anew and takes the next few steps; it remembers nothing that is not
//! in the engines or in the store. So it may be killed between any two actions: the next pass goes
//! on from what it finds. `standalone` feeds it from a directory instead of a cluster.

#![forbid(unsafe_code)]

pub mod apply;
pub mod certificates;
pub mod cluster;
pub mod decide;
pub mod desired;
pub mod engines;
pub mod kubectl;
pub mod observe;
pub mod reconcile;
pub mod source;
pub mod standalone;
pub mod store;
pub mod wanted;

#[cfg(test)]
mod fake;
