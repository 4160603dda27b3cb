//! The harness of the tests that judge the whole, and the two programs built on it.
//!
//! ```text
//!   tests/*.rs  ─┐                 ┌─ replay    one trace, two engines, three digests a step
//!                ├─► harness ◄─────┤  qemu      the same on a pair of real QEMU processes
//!   main.rs     ─┘   processes     └─ ledger    numbered, dependent writes and their checker
//!                    NBD client
//!                    tools            trace     the format, its parser, its generator
//!   engines, fio, faults ───────────── soak      rounds of faults under load, on real processes
//!   API server, kubelets ───────────── cluster   Kubernetes on one machine: a bench, and whole
//!   simulator ──────────────────────── model     the filter against a plain model, in one process
//!   any bytes ───────────────────────── fuzz      every decoder, by cargo-fuzz or shortly in t1_fuzz
//!                                     layers    who may import what, checked
//! ```
//!
//! The NBD client here is blocking and shares no code with the product's: it is the second opinion.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod e2e;
pub mod fuzz;
pub mod harness;
pub mod layers;
pub mod ledger;
pub mod model;
pub mod qemu;
pub mod random;
pub mod replay;
pub mod soak;
pub mod trace;
