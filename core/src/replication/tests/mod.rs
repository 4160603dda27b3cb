//! The filter on the simulator: scenarios, interleavings, faults, random histories.

mod disk_faults;
mod expand;
mod garbage;
mod interleavings;
mod join;
mod limits;
mod link_faults;
mod operations;
mod pair;
mod requests;
mod restarts;
mod resync;
mod scenarios;
mod two;
mod unknown;
mod upstream;
