//! Nothing leaks: whoever is killed, at whichever step.

use std::time::Duration;

use understudy_core::attach::steps;
use understudy_core::engine::attach::api::DeviceState;
use understudy_tests::harness::attach::{Leftovers, possible};

use crate::stage::{MIB, Mounted, Stage, run};

const ROUNDS: usize = 100;

#[test]
fn a_hundred_rounds_of_attach_and_detach_leave_nothing() {
    if !possible("t2_attach rounds") {
        return;
    }
    let stage = Stage::new("rounds", 8 * MIB);
    for round in 0..ROUNDS {
        let device = stage.attach();
        let written = vec![u8::try_from(round).unwrap(); 4096];
        std::fs::write(&device.path, &written).unwrap();
        stage.attachd.detach(&stage.volume).unwrap();
    }
    stage.assert_nothing_is_left("after a hundred rounds");
}

/// After a kill: either a device that works, or nothing at all; and then nothing after a detach.
fn whole_or_nothing(stage: &Stage, step: &str) {
    let left = stage.leftovers();
    if let Ok(device) = stage.attachd.device(&stage.volume) {
        assert_eq!(device.state, DeviceState::Serving, "{step}: {device:#?}");
        assert_eq!((left.loops.len(), left.holders.len()), (1, 1), "{step}: {left:#?}");
        std::fs::write(&device.path, [1; 4096]).unwrap();
    }
}

#[test]
fn a_daemon_killed_at_any_step_of_an_attach_leaves_a_device_or_nothing() {
    if !possible("t2_attach killed attaching") {
        return;
    }
    let mut stage = Stage::new("attaching", 8 * MIB);
    for step in steps::ATTACH {
        for again in [false, true] {
            stage.attachd.restart_to_die_at(step).unwrap();
            stage.attachd.attach(&stage.wanted()).unwrap_err();
            stage.attachd.restart().unwrap();
            // A holder that was just started may need a moment to be there.
            if stage.leftovers().holders.len() == 1 {
                let there = |d: &understudy_core::engine::attach::api::Device| d.size.0 == 8 * MIB;
                for _ in 0..100 {
                    if stage.attachd.device(&stage.volume).is_ok_and(|d| there(&d)) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            whole_or_nothing(&stage, step);
            if again {
                // Who asked asks again.
                let device = stage.attach();
                std::fs::write(&device.path, [2; 4096]).unwrap();
            }
            stage.attachd.detach(&stage.volume).unwrap();
            stage.assert_nothing_is_left(step);
        }
    }
}

#[test]
fn a_daemon_killed_at_any_step_of_a_detach_leaves_a_device_or_nothing() {
    if !possible("t2_attach killed detaching") {
        return;
    }
    let mut stage = Stage::new("detaching", 8 * MIB);
    for step in steps::DETACH {
        stage.attachd.restart_to_die_at(step).unwrap();
        stage.attach();
        stage.attachd.detach(&stage.volume).unwrap_err();
        stage.attachd.restart().unwrap();
        whole_or_nothing(&stage, step);
        stage.attachd.detach(&stage.volume).unwrap();
        stage.assert_nothing_is_left(step);
    }
}

#[test]
fn a_holder_killed_at_any_step_leaves_nothing() {
    if !possible("t2_attach killed holders") {
        return;
    }
    let mut stage = Stage::new("holding", 8 * MIB);
    for step in steps::HOLD {
        stage.attachd.restart_to_die_at(step).unwrap();
        let attached = stage.attachd.attach(&stage.wanted());
        // The last step comes with the detach.
        assert_eq!(attached.is_ok(), *step == "hold.released", "{step}");
        stage.attachd.detach(&stage.volume).unwrap();
        stage.assert_nothing_is_left(step);
    }
}

#[test]
fn a_living_device_is_found_again_by_the_next_daemon() {
    if !possible("t2_attach found again") {
        return;
    }
    let mut stage = Stage::new("found", 8 * MIB);
    let device = stage.attach();
    std::fs::write(&device.path, [5; 4096]).unwrap();
    for how in ["KILL", "TERM"] {
        stage.attachd.process().unwrap().signal(how).unwrap();
        stage.attachd.process().unwrap().wait(Duration::from_secs(10)).unwrap();
        assert_eq!(std::fs::read(&device.path).unwrap()[..4096], [5; 4096], "without a daemon");
        stage.attachd.restart().unwrap();
        let found = stage.attach();
        assert_eq!((found.path, found.session), (device.path.clone(), device.session));
    }
    stage.attachd.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn a_dead_holder_leaves_a_failing_device_while_it_is_used_and_nothing_after() {
    if !possible("t2_attach dead holder") {
        return;
    }
    let stage = Stage::new("dead", 32 * MIB);
    let device = stage.attach();
    run("mkfs.ext4", ["-q", "-F", &device.path.display().to_string()]);
    let mounted = Mounted::new(&device.path, &stage.directory().join("mnt"));
    let holder = stage.leftovers().holders[0].to_string();
    run("kill", ["-KILL", &holder]);
    let found = stage.attachd.wait_for(&stage.volume, "Gone", |d| d.state == DeviceState::Gone);
    let found = found.unwrap();
    assert_eq!(found.path, device.path, "its number stays taken");
    let refused = stage.attachd.detach(&stage.volume).unwrap_err().to_string();
    assert!(refused.contains("holder is dead") && refused.contains("mounted at"), "{refused}");
    drop(mounted);
    stage.attachd.detach(&stage.volume).unwrap();
    assert_eq!(stage.leftovers(), Leftovers::default());
}
