//! The filter on the simulator: scenarios, interleavings, faults, random histories.

mod disk_faults;
mod interleavings;
mod link_faults;
mod pair;
mod scenarios;
mod upstream;
