//! How fast a device is: figures for people, no judgement.

use understudy_tests::harness::attach::possible;
use understudy_tests::harness::tools;

use crate::stage::{MIB, Stage, run};

#[test]
#[ignore = "prints figures: cargo test --test t2_attach -- --ignored --nocapture"]
fn figures() {
    if !possible("t2_attach figures") || tools::require("t2_attach figures", ["fio"]).is_none() {
        return;
    }
    let stage = Stage::new("figures", 256 * MIB);
    let device = stage.attach();
    for (rw, bs, depth) in [
        ("randread", "4k", 1),
        ("randread", "4k", 32),
        ("randwrite", "4k", 1),
        ("randwrite", "4k", 32),
        ("read", "1m", 8),
        ("write", "1m", 8),
    ] {
        let text = run(
            "fio",
            [
                "--name=f".to_owned(),
                format!("--filename={}", device.path.display()),
                "--ioengine=libaio".to_owned(),
                "--direct=1".to_owned(),
                format!("--rw={rw}"),
                format!("--bs={bs}"),
                format!("--iodepth={depth}"),
                "--runtime=3".to_owned(),
                "--time_based".to_owned(),
            ],
        );
        let line = text.lines().find(|line| line.contains("IOPS=")).unwrap_or_default().trim();
        println!("{rw} {bs} QD{depth}: {line}");
    }
    stage.attachd.detach(&stage.volume).unwrap();
}
