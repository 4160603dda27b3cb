use super::*;

fn name(s: &str) -> Name {
    s.parse().unwrap()
}

#[test]
fn an_empty_directory_becomes_a_pool_and_stays_that_pool() {
    let dir = tempfile::tempdir().unwrap();
    let uuid = Pool::open(dir.path()).unwrap().uuid();
    assert_ne!(uuid, Uuid::default());
    assert_eq!(Pool::open(dir.path()).unwrap().uuid(), uuid);
}

#[test]
fn an_empty_pool_is_left_as_an_empty_directory_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path()).unwrap();
    let uuid = pool.uuid();
    if !pool.leave_if_empty().unwrap() {
        println!(
            "SKIPPED: {} has no attributes: set TMPDIR to a file system that has",
            dir.path().display()
        );
        return;
    }
    drop(pool);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let again = Pool::open(dir.path()).unwrap();
    assert_eq!(again.uuid(), uuid);
    // What somebody removes by hand does not come back as the same pool.
    drop(again);
    fs::remove_file(dir.path().join("pool.yaml")).unwrap();
    fs::remove_dir_all(dir.path().join("volumes")).unwrap();
    fs::remove_dir_all(dir.path().join("groups")).unwrap();
    assert_ne!(Pool::open(dir.path()).unwrap().uuid(), uuid);
}

#[test]
fn a_pool_that_holds_something_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path()).unwrap();
    pool.draft(Kind::Volume, &name("a")).unwrap();
    pool.publish(Kind::Volume, &name("a")).unwrap();
    assert!(!pool.leave_if_empty().unwrap());
    assert!(dir.path().join("pool.yaml").is_file());
    let uuid = pool.uuid();
    drop(pool);
    assert_eq!(Pool::open(dir.path()).unwrap().uuid(), uuid);
}

#[test]
fn a_second_engine_on_a_pool_is_refused_and_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Pool::open(dir.path()).unwrap();
    let error = Pool::open(dir.path()).unwrap_err();
    assert_eq!(error.refusal, Refusal::WrongState);
    assert!(error.message.contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn a_path_that_can_be_no_pool_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Pool::open(&dir.path().join("none")).unwrap_err();
    assert!(missing.message.contains("make the directory"), "{missing}");
    fs::write(dir.path().join("letters.txt"), "dear").unwrap();
    let foreign = Pool::open(dir.path()).unwrap_err();
    assert!(foreign.message.contains("letters.txt"), "{foreign}");
    assert!(!dir.path().join(LOCK).exists(), "a refused directory is left as it was");
    let file = Pool::open(&dir.path().join("letters.txt")).unwrap_err();
    assert!(file.message.contains("not a directory"), "{file}");
}

#[test]
fn a_damaged_or_newer_identity_is_refused_and_left_alone() {
    for (text, word) in [
        ("version: 2\nuuid: x\nmore: 1\n", "newer"),
        ("version: 1\nuuid: x\n", "damaged"),
        ("", "damaged"),
        ("version: 1\n\0\0", "damaged"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pool.yaml"), text).unwrap();
        let error = Pool::open(dir.path()).unwrap_err();
        assert_eq!(error.refusal, Refusal::DataLoss, "{error}");
        assert!(error.message.contains(word), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join("pool.yaml")).unwrap(), text);
    }
}

#[test]
fn a_directory_is_there_only_once_it_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path()).unwrap();
    let draft = pool.draft(Kind::Volume, &name("a")).unwrap();
    fs::write(draft.join("disk"), "x").unwrap();
    assert_eq!(pool.list(Kind::Volume).unwrap(), []);
    drop(pool);
    let pool = Pool::open(dir.path()).unwrap();
    assert!(!draft.exists(), "the start sweeps what was not finished");

    pool.draft(Kind::Volume, &name("a")).unwrap();
    pool.publish(Kind::Volume, &name("a")).unwrap();
    assert_eq!(pool.list(Kind::Volume).unwrap(), [name("a")]);
    pool.remove(Kind::Volume, &name("a")).unwrap();
    pool.remove(Kind::Volume, &name("a")).unwrap();
    assert_eq!(pool.list(Kind::Volume).unwrap(), []);
    assert_eq!(fs::read_dir(dir.path().join("volumes")).unwrap().count(), 0);
}

#[test]
fn what_an_engine_did_not_make_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path()).unwrap();
    fs::create_dir(dir.path().join("volumes/a b")).unwrap();
    fs::write(dir.path().join("volumes/file"), "x").unwrap();
    assert_eq!(pool.list(Kind::Volume).unwrap(), []);
    assert!(dir.path().join("volumes/file").exists());
}

#[test]
fn the_capacity_is_that_of_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path()).unwrap();
    let c = pool.capacity().unwrap();
    assert!(c.total >= c.available && c.total.0 > 0);
}
