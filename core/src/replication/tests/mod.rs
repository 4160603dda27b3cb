//! The filter on the simulator: scenarios, interleavings, random histories.

mod interleavings;
mod pair;
mod scenarios;
mod upstream;
