//! What every test of processes needs: children that cannot outlive us, an NBD client, tools.

pub mod attach;
pub mod certs;
pub mod csi;
pub mod device;
pub mod direct;
pub mod engine;
pub mod engines;
pub mod fio;
pub mod gate;
pub mod nbd;
pub mod nbd_address;
pub mod process;
pub mod proxy;
pub mod scrape;
pub mod tools;
