//! A volume is made, staged, published, taken back and deleted, again and again: everything is counted
//! before and after, and nothing is left.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use understudy_tests::cluster::Bench;
use understudy_tests::harness::csi::Driver;

use super::kubelet::{Kubelet, block, mount};
use super::{assert_nothing_is_left, driver};

/// How many, where nobody asks for more by `UNDERSTUDY_ROUNDS`.
const ROUNDS: usize = 60;

/// So many first: pools of threads and connections fill once.
const WARM: usize = 10;

/// How much more memory a process may have after it all, in KiB: allocators keep some.
const GROWTH_KIB: u64 = 16 << 10;

/// How many more threads: pools grow and shrink, within their limits.
const MORE_THREADS: usize = 8;

/// How long a device may be in somebody else's hands.
const PATIENCE: Duration = Duration::from_secs(30);

/// What there is of anything that could leak. Memory, in KiB, stands apart.
#[derive(Debug)]
struct Counted {
    things: BTreeMap<String, usize>,
    memory: BTreeMap<String, u64>,
}

impl Counted {
    /// What there is more of than before.
    fn more_than(&self, before: &Self) -> Vec<String> {
        let allowed = |name: &str| if name.ends_with(": threads") { MORE_THREADS } else { 0 };
        let more = |(name, n): &(&String, &usize)| **n > before.things[*name] + allowed(name);
        let things = self.things.iter().filter(more);
        things.map(|(name, n)| format!("{name}: {}, then {n}", before.things[name])).collect()
    }
}

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Files and directories below a directory.
fn below(directory: &Path) -> usize {
    let inside = entries(directory);
    let deeper = |path: &std::path::PathBuf| if path.is_dir() { below(path) } else { 0 };
    inside.len() + inside.iter().map(deeper).sum::<usize>()
}

fn count(directory: &Path, bench: &Bench, driver: &Driver) -> Counted {
    let mut things = BTreeMap::new();
    let mut memory = BTreeMap::new();
    let mut set = |name: &str, n: usize| {
        things.insert(name.to_owned(), n);
    };
    for (name, pid) in driver.processes() {
        let process = Path::new("/proc").join(pid.to_string());
        set(&format!("{name}: descriptors"), entries(&process.join("fd")).len());
        set(&format!("{name}: threads"), entries(&process.join("task")).len());
        let children = process.join(format!("task/{pid}/children"));
        let children = std::fs::read_to_string(children).unwrap_or_default();
        set(&format!("{name}: children"), children.split_whitespace().count());
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib = resident.trim().trim_end_matches(" kB").parse().unwrap();
        memory.insert(name.to_owned(), kib);
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = directory.display().to_string();
    set("mounts", table.lines().filter(|line| line.contains(&ours)).count());
    let left = driver.attachd.leftovers("pvc-round");
    set("loop devices", left.loops.len());
    set("holders", left.holders.len());
    set("files of the attach daemon", left.files.len());
    set("files of the pool", below(&directory.join("node-a/pool")));
    set("files of the kubelet", below(&directory.join("pods")));
    let objects = bench.kubectl().unwrap().run(["get", "rvol,rgroup", "-o", "name"]).unwrap();
    set("objects", objects.lines().count());
    Counted { things, memory }
}

/// Unstages as the kubelet does: again, if it was refused. Somebody may have the device a moment longer,
/// as a container that starts elsewhere with a copy of the table of mounts. How often it was refused.
fn unstage(kubelet: &Kubelet<'_>, volume: &str) -> usize {
    let end = Instant::now() + PATIENCE;
    let mut refused = 0;
    while let Err(refusal) = kubelet.unstage(volume) {
        let text = refusal.message();
        assert!(text.contains("in use") && Instant::now() < end, "refused {refused} times: {text}");
        refused += 1;
        std::thread::sleep(Duration::from_millis(500));
    }
    refused
}

/// One life; how often it had to wait for somebody else.
fn round(kubelet: &Kubelet<'_>, number: usize) -> usize {
    // A file system in every second one.
    let has_files = number.is_multiple_of(2);
    let capability = if has_files { mount() } else { block() };
    let volume = kubelet.create_for(&format!("pvc-round-{number}"), 8, &capability);
    let id = volume.volume_id.as_str();
    kubelet.stage_for(id, &capability).unwrap();
    kubelet.publish_for(id, "pods/target", &capability).unwrap();
    let target = kubelet.path("pods/target");
    let written = if has_files { target.join("file") } else { target };
    std::fs::write(written, vec![1; 64 << 10]).unwrap();
    kubelet.unpublish(id, "pods/target");
    let refused = unstage(kubelet, id);
    kubelet.delete(id).unwrap();
    refused
}

#[test]
fn a_volumes_whole_life_leaves_nothing_however_often() {
    let test = "a_volumes_whole_life_leaves_nothing_however_often";
    let Some((directory, bench, driver)) = driver(test) else { return };
    let rounds = std::env::var("UNDERSTUDY_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |text| text.parse().unwrap());
    let kubelet = Kubelet::new(&driver, directory.path());
    std::fs::create_dir(directory.path().join("pods")).unwrap();
    for number in 0..WARM {
        round(&kubelet, number);
    }
    let before = count(directory.path(), &bench, &driver);
    let began = Instant::now();
    let mut refused = 0;
    for number in WARM..WARM + rounds {
        refused += round(&kubelet, number);
    }
    let took = began.elapsed();
    // Connections of the last round may need a moment to end.
    let end = Instant::now() + Duration::from_secs(20);
    let after = loop {
        let after = count(directory.path(), &bench, &driver);
        if after.more_than(&before).is_empty() || Instant::now() >= end {
            break after;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    println!("{rounds} rounds in {took:.1?}, {refused} of their calls made again");
    let mut leaks = after.more_than(&before);
    for (name, n) in &after.things {
        println!("  {name}: {}, then {n}", before.things[name]);
    }
    for (name, kib) in &after.memory {
        let was = before.memory[name];
        println!("  {name}: {was} KiB, then {kib} KiB");
        if *kib > was + GROWTH_KIB {
            leaks.push(format!("{name}: {was} KiB, then {kib} KiB"));
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert_nothing_is_left(directory.path(), &bench, &driver);
}
