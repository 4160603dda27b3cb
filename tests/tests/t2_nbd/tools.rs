//! Other people's clients against our server.

use serde_json::Value;
use understudy_core::disk::Caching;

use super::command::{have, output, run};
use super::server::{Server, all, text};

const MIB: u64 = 1 << 20;
const QEMU: [(&str, &str); 2] = [("qemu-img", "qemu-utils"), ("qemu-io", "qemu-utils")];
const LIBNBD: [(&str, &str); 2] = [("nbdinfo", "libnbd-bin"), ("nbdcopy", "libnbd-bin")];

/// An image of `len` bytes: noise, with holes.
fn image(len: u64) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let block = |n: u64, state: &mut u64| -> Vec<u8> {
        if n % 5 < 2 {
            return vec![0; 65536];
        }
        let words = std::iter::repeat_with(|| {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            state.to_le_bytes()
        });
        words.take(65536 / 8).flatten().collect()
    };
    (0..len / 65536).flat_map(|n| block(n, &mut state)).collect()
}

#[test]
fn qemu_img_converts_there_and_back_and_finds_both_alike() {
    if !have(&QEMU) {
        return;
    }
    for (kind, server) in all(16 * MIB) {
        let (from, back) = (server.path("from.raw"), server.path("back.raw"));
        std::fs::write(&from, image(16 * MIB)).unwrap();
        let (from, back, uri) = (text(&from), text(&back), server.uri());
        run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", from, &uri]);
        run("qemu-img", &["compare", "-f", "raw", "-F", "raw", from, &uri]);
        run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, back]);
        assert!(std::fs::read(from).unwrap() == std::fs::read(back).unwrap(), "{kind}");
        run("qemu-io", &["-f", "raw", "-c", "write -P 7 70000 1", &uri]);
        let compared = output("qemu-img", &["compare", "-f", "raw", "-F", "raw", from, &uri]);
        assert_eq!(compared.status.code(), Some(1), "{kind}: a changed byte is found");
    }
}

#[test]
fn qemu_io_reads_what_it_wrote_at_any_alignment() {
    if !have(&QEMU) {
        return;
    }
    for (kind, server) in all(8 * MIB) {
        let script = [
            "write -P 0x5a 4096 8192",
            "read -P 0x5a 4096 8192",
            "write -P 0x77 4097 3",
            "read -P 0x77 4097 3",
            "read -P 0x5a 4100 100",
            "write -f -P 0x11 1M 3M",
            "read -P 0x11 1M 3M",
            "write -z 1M 64k",
            "read -P 0 1M 64k",
            "write -z -u 2M 1M",
            "read -P 0 2M 1M",
            "discard 3M 512k",
            "read -P 0 3M 512k",
            "aio_write -P 1 0 4k",
            "aio_write -P 2 4k 4k",
            "aio_write -P 3 8k 4k",
            "aio_flush",
            "read -P 3 8k 4k",
            "write -P 9 8388607 1",
            "read -P 9 8388607 1",
            "flush",
        ];
        let uri = server.uri();
        let mut args = vec!["-f", "raw"];
        args.extend(script.iter().flat_map(|c| ["-c", c]));
        args.push(&uri);
        let text = run("qemu-io", &args);
        assert!(!text.contains("failed"), "{kind}: {text}");
    }
}

#[test]
fn qemu_img_and_nbdinfo_see_the_holes_of_a_file() {
    if !have(&QEMU) || !have(&LIBNBD) {
        return;
    }
    let server = Server::file(16 * MIB, Caching::Direct);
    let uri = server.uri();
    run("qemu-io", &["-f", "raw", "-c", "write -P 1 4M 1M", "-c", "flush", &uri]);
    let map = run("qemu-img", &["map", "-f", "raw", "--output=json", &uri]);
    let map: Value = serde_json::from_str(&map).unwrap();
    let holes: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["start"].as_u64().unwrap(), e["length"].as_u64().unwrap(), &e["zero"] == true))
        .collect();
    let expected = [(0, 4 * MIB, true), (4 * MIB, MIB, false), (5 * MIB, 11 * MIB, true)];
    assert_eq!(holes, expected);
    let map: Value = serde_json::from_str(&run("nbdinfo", &["--map", "--json", &uri])).unwrap();
    let types: Vec<_> = map.as_array().unwrap().iter().map(|e| e["type"].as_u64()).collect();
    assert_eq!(types, [Some(3), Some(0), Some(3)]);
}

#[test]
fn nbdinfo_reports_what_we_offer() {
    if !have(&LIBNBD) {
        return;
    }
    for (kind, server) in all(8 * MIB) {
        let info: Value =
            serde_json::from_str(&run("nbdinfo", &["--json", &server.uri()])).unwrap();
        let export = &info["exports"][0];
        assert_eq!(info["protocol"], "newstyle-fixed", "{kind}");
        assert_eq!(info["structured"], true, "{kind}");
        assert_eq!(export["export-size"], 8 * MIB, "{kind}");
        assert_eq!(export["description"], "a disk for tests", "{kind}");
        assert_eq!(export["contexts"][0], "base:allocation", "{kind}");
        for can in ["can_flush", "can_fua", "can_trim", "can_zero", "can_df", "can_multi_conn"] {
            assert_eq!(export[can], true, "{kind}: {can}");
        }
        assert_eq!(export["is_read_only"], false, "{kind}");
        assert_eq!(export["can_fast_zero"], false, "{kind}");
        let root = server.uri().replace("///disk", "///");
        let list: Value =
            serde_json::from_str(&run("nbdinfo", &["--list", "--json", &root])).unwrap();
        assert_eq!(list["exports"][0]["export-name"], "disk", "{kind}");
        let wrong = output("nbdinfo", &[&server.uri().replace("///disk", "///other")]);
        let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
        assert!(!wrong.status.success(), "{kind}: an unknown export is refused: {words}");
    }
}

#[test]
fn nbdcopy_copies_in_and_out_over_several_connections() {
    if !have(&LIBNBD) {
        return;
    }
    for (kind, server) in all(32 * MIB) {
        let (from, back) = (server.path("from.raw"), server.path("back.raw"));
        std::fs::write(&from, image(32 * MIB)).unwrap();
        run("nbdcopy", &["--flush", "--connections=4", text(&from), &server.uri()]);
        run("nbdcopy", &["--connections=4", &server.uri(), text(&back)]);
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&back).unwrap(), "{kind}");
    }
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !have(&[("fio", "fio")]) {
        return;
    }
    for (kind, server) in all(16 * MIB) {
        let uri = format!("--uri={}", server.uri());
        for bs in ["--bs=4k", "--bsrange=4k-256k"] {
            let mut args = vec!["--name=v", "--ioengine=nbd", &uri, bs];
            args.extend(["--rw=randrw", "--size=16M", "--iodepth=32", "--fsync=64"]);
            args.extend(["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"]);
            args.push("--output-format=json");
            let text = run("fio", &args);
            let json = text.find('{').and_then(|at| text.get(at..)).unwrap_or_default();
            let report: Value = serde_json::from_str(json).unwrap();
            assert_eq!(report["jobs"][0]["error"], 0, "{kind}: {text}");
        }
    }
}

#[test]
fn a_read_only_export_is_one_for_qemu_too() {
    if !have(&QEMU) {
        return;
    }
    let server = Server::start(understudy_core::nbd::server::Limits::default(), 10, true, |_| {
        std::future::ready(understudy_core::disk::Memory::new(MIB, 0))
    });
    let uri = server.uri();
    let out = output("qemu-io", &["-f", "raw", "-c", "write 0 4k", &uri]);
    assert!(!out.status.success(), "{out:?}");
    run("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0 0 4k", &uri]);
}
