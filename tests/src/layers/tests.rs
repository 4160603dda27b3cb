//! A check that cannot fail is none: each rule meets a sample that breaks it.

use super::*;

fn core(file: &str, source: &str) -> Vec<String> {
    check_core(Path::new(file), source)
        .into_iter()
        .map(|violation| format!("{}: {}: {}", violation.line, violation.path, violation.rule))
        .collect()
}

#[test]
fn imports_downward_are_fine() {
    for (file, source) in [
        ("engine/mod.rs", "use crate::{nbd::server, replication::Group}; use tokio::sync::mpsc;"),
        ("replication/group.rs", "use crate::overlay::Bitmap; use std::time::Duration;"),
        ("disk/file.rs", "use super::error::Error; use std::fs::File; use crate::runtime::Buf;"),
        ("overlay/mod.rs", "/// See [`crate::replication`].\npub mod bitmap;"),
        ("link/frame.rs", "#[cfg(test)]\nmod tests { use crate::sim::World; use super::*; }"),
        ("main.rs", "use tokio::runtime::Runtime;"),
    ] {
        assert_eq!(core(file, source), Vec::<String>::new(), "{file}");
    }
}

#[test]
fn an_import_upward_is_found_however_it_is_written() {
    for (file, source) in [
        ("disk/mod.rs", "use crate::overlay::Bitmap;"),
        ("overlay/bitmap.rs", "\nuse crate::{\n    units::Epoch,\n    link::frame::Frame,\n};"),
        ("link/frame.rs", "fn f() -> crate::replication::Stage {}"),
        ("link/mod.rs", "use super::overlay::Bitmap;"),
        ("overlay/undo/map.rs", "use super::super::super::link::frame;"),
        ("nbd/server.rs", "use crate::attach::Device;"),
        ("replication/mod.rs", "use crate::sim::World;"),
    ] {
        let found = core(file, source);
        assert_eq!(found.len(), 1, "{file}: {found:?}");
        assert!(found[0].contains("must not import"), "{found:?}");
    }
    assert!(core("overlay/bitmap.rs", "\n\nuse crate::link::Frame;")[0].starts_with("3: "));
}

#[test]
fn the_control_plane_stays_in_engine() {
    for source in
        ["use tokio::net::UnixStream;", "fn f(_: tonic::Status) {}", "use prost::Message;"]
    {
        assert_eq!(core("nbd/server.rs", source).len(), 1, "{source}");
        assert_eq!(core("engine/server.rs", source).len(), 0, "{source}");
    }
}

#[test]
fn the_world_comes_through_the_host() {
    for source in [
        "use std::time::Instant;",
        "use std::{thread, rc::Rc};",
        "let now = std::time::SystemTime::now();",
        "use std::fs::File;",
        "use std::net::TcpStream;",
        "use std::os::unix::net::UnixStream;",
        "use std::collections::{BTreeMap, HashMap};",
        "use rustix::fs::openat;",
    ] {
        for layer in ["overlay", "link", "replication"] {
            assert_eq!(core(&format!("{layer}/x.rs"), source).len(), 1, "{layer}: {source}");
        }
        assert_eq!(core("runtime/x.rs", source).len(), 0, "{source}");
    }
}

#[test]
fn a_new_top_level_module_must_be_given_a_place() {
    assert_eq!(core("helpers.rs", "").len(), 1);
}

#[test]
fn dependants_see_the_client_and_the_units_only() {
    let fine = "use understudy_core::{engine::client::Client, units::Generation};\n\
                use understudy_core::engine::proto;\nuse understudy_core::runtime::Address;";
    assert_eq!(check_dependant(fine), Vec::new());
    for bad in [
        "use understudy_core::replication::Group;",
        "use understudy_core::engine::server::serve;",
        "fn f(_: understudy_core::runtime::Buf) {}",
        "use understudy_core::{units::Epoch, disk};",
    ] {
        assert_eq!(check_dependant(bad).len(), 1, "{bad}");
    }
}
