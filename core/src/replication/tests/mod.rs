//! The filter on the simulator: scenarios, interleavings, random histories.

mod pair;
mod scenarios;
mod upstream;
