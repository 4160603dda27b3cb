//! A directory from its files to what is wanted of the engines, and the store beside them.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as it does")]

use std::collections::BTreeMap;
use std::path::Path;

use understudy_core::units::ByteLen;
use understudy_crds::replication_group::{GroupMember, GroupSide, Owner};
use understudy_crds::{BlockReplicationStatus, ReplicationGroupSpec};
use understudy_operator::desired::{Desired, ObjectName, Wish};
use understudy_operator::standalone::directory::Directory;
use understudy_operator::standalone::files::Files;
use understudy_operator::standalone::manifest::Manifests;

use understudy_operator::store::{Store, StoreError};
use understudy_operator::wanted::{Wanted, wanted};

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: root, namespace: shop}
spec: {resources: {requests: {storage: 1Mi}}}
---
";

fn replication(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: understudy.dev/v1alpha1\nkind: BlockReplication\n\
         metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
    )
}

const OF_ROOT: &str = "{source: {persistentVolumeClaims: [{name: root}]}}";

fn load(dir: &Path) -> (Manifests, Wanted) {
    let mut files = Files::new(dir);
    files.poll().unwrap();
    let manifests = Manifests::read(&files.documents());
    let wanted = wanted(&manifests.objects(&BTreeMap::new()), &manifests, &[]);
    (manifests, wanted)
}

fn of(text: &str) -> (Manifests, Wanted) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), text).unwrap();
    load(dir.path())
}

fn only(wanted: &Wanted) -> &Desired {
    assert_eq!(wanted.groups.len(), 1, "{wanted:?}");
    wanted.groups.values().next().unwrap()
}

/// The refusal of the only source.
fn refusal(text: &str) -> (&'static str, String) {
    let (_, wanted) = of(text);
    let refusal = only(&wanted).volumes.clone().unwrap_err();
    (refusal.reason, refusal.message)
}

#[test]
fn the_examples_can_be_obeyed_as_they_stand() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/standalone");
    let (manifests, wanted) = load(&examples);
    assert!(manifests.problems.is_empty(), "{:?}", manifests.problems);
    assert!(wanted.refused.is_empty(), "{:?}", wanted.refused);
    let web = &wanted.groups[&"shop.web".parse().unwrap()];
    assert_eq!(web.volumes.as_ref().unwrap().len(), 2);
    let database = &wanted.groups[&"shop.database".parse().unwrap()];
    let volumes = database.volumes.as_ref().unwrap();
    let handles: Vec<_> = volumes.iter().map(|v| v.member.volume.as_str()).collect();
    assert_eq!(handles, ["pvc-5f0c1c5e", "pvc-9b6d2f00"]);
    assert_eq!(volumes[1].member.size, ByteLen(32 << 20));
    assert_eq!(volumes[1].node.as_deref(), Some("node-a"));
}

#[test]
fn sources_that_can_not_be_resolved_say_what_is_missing() {
    let root = replication("web", OF_ROOT);
    let table = [
        (root.clone(), "SourceNotFound", "no PersistentVolumeClaim shop/root"),
        (
            replication("web", "{source: {virtualMachine: {name: vm}}}"),
            "SourceNotFound",
            "no VirtualMachine shop/vm",
        ),
        (root.clone() + &CLAIM.replace("1Mi", "1000"), "SourceUnusable", "a multiple of 512 bytes"),
        (root.clone() + &CLAIM.replace("1Mi", "lots"), "SourceUnusable", "'lots' is no size"),
        (
            root.clone() + &CLAIM.replace("{resources", "{volumeName: ../x, resources"),
            "SourceUnusable",
            "'../x' is no name",
        ),
        (
            root.clone()
                + CLAIM
                + "apiVersion: understudy.dev/v1alpha1\nkind: ReplicatedVolume\n\
             metadata: {name: root}\nspec: {sizeBytes: 512}\n",
            "SizeMismatch",
            "requests 1048576 bytes, its volume root has 512",
        ),
        (
            replication("web", "{source: {virtualMachine: {name: vm}}}")
                + "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\n\
                   metadata: {name: vm, namespace: shop}\nspec: {template: {spec: {}}}\n",
            "SourceUnusable",
            "no disk that is a persistentVolumeClaim",
        ),
    ];
    for (text, reason, words) in table {
        let (found, message) = refusal(&text);
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_volume_that_two_ask_for_goes_to_neither() {
    let text = CLAIM.to_owned() + &replication("web", OF_ROOT) + &replication("shop", OF_ROOT);
    let (_, wanted) = of(&text);
    for desired in wanted.groups.values() {
        let refusal = desired.volumes.clone().unwrap_err();
        assert_eq!(refusal.reason, "SourceConflict");
        assert!(refusal.message.contains("also replicated by shop/"), "{}", refusal.message);
    }
}

#[test]
fn a_wrong_manifest_is_refused_by_name_and_its_neighbours_are_not() {
    let text = CLAIM.to_owned()
        + &replication("web", OF_ROOT)
        + &replication("bad", "{source: {persistentVolumeClaims: [{name: root}]}, sate: Running}")
        + "kind: Nothing\n---\napiVersion: understudy.dev/v1alpha1\nkind: BlockReplikation\n---\n- 1\n";
    let (manifests, wanted) = of(&text);
    assert_eq!(only(&wanted).name.name, "web");
    let refusal = wanted.refused.values().next().unwrap();
    assert!(refusal.message.contains("no such field 'sate'; did you mean state?"), "{refusal:?}");
    let problems: Vec<_> = manifests.problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[1].contains("no kind BlockReplikation"), "{problems:?}");
}

#[test]
fn names_that_climb_out_of_the_status_folder_are_refused() {
    let (manifests, wanted) = of(&replication("../../x", OF_ROOT));
    assert!(wanted.groups.is_empty() && wanted.refused.is_empty());
    assert!(manifests.problems[0].message.contains("'../../x'"), "{:?}", manifests.problems);
}

fn group(generation: &str) -> ReplicationGroupSpec {
    ReplicationGroupSpec {
        owner: Owner { namespace: "shop".to_owned(), name: "web".to_owned() },
        generation: generation.to_owned(),
        members: vec![GroupMember::new("root", 512)],
        primary: GroupSide { node: "a".to_owned(), pool: "01".to_owned(), policy: None },
        secondary: None,
        left_behind: Vec::new(),
        promotion: None,
    }
}

#[tokio::test]
async fn the_group_object_changes_by_compare_and_swap_only_and_outlives_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let name = "shop.web".parse().unwrap();
    let (first, second) = (group("1-00000000000000aa"), group("3-00000000000000bb"));
    {
        let store = Directory::open(dir.path()).unwrap();
        store.put_group(&name, None, &first).await.unwrap();
        let lost = store.put_group(&name, None, &second).await.unwrap_err();
        assert!(matches!(lost, StoreError::Conflict { .. }));
        let other = Directory::open(dir.path()).unwrap_err();
        let StoreError::Failed { source, .. } = other else { panic!("{other}") };
        assert!(source.to_string().contains("another operator"));
    }
    let store = Directory::open(dir.path()).unwrap();
    let found = store.group(&name).await.unwrap().unwrap();
    assert_eq!((found.version.as_str(), &found.spec), ("1", &first));
    store.put_group(&name, Some("1"), &second).await.unwrap();
    assert!(store.put_group(&name, Some("1"), &first).await.is_err());
    assert_eq!(store.groups().await.unwrap()[0].spec, second);
}

#[tokio::test]
async fn a_group_object_that_can_not_be_read_is_an_error_and_not_a_fresh_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Directory::open(dir.path()).unwrap();
    let name = "shop.web".parse().unwrap();
    store.put_group(&name, None, &group("1-00000000000000aa")).await.unwrap();
    let path = dir.path().join("status/replicationgroup-shop.web.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    for broken in [text.replace("1-0000", "x-0000"), "{".to_owned(), text.replace("primary", "p")] {
        std::fs::write(&path, broken).unwrap();
        let error = store.group(&name).await.unwrap_err();
        assert!(error.to_string().contains("replicationgroup-shop.web.yaml"), "{error}");
        assert!(store.put_group(&name, None, &group("1-00000000000000aa")).await.is_err());
    }
}

#[tokio::test]
async fn the_generation_of_an_object_grows_with_its_spec_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let name = ObjectName { namespace: "shop".to_owned(), name: "web".to_owned() };
    let (one, two) = (serde_json::json!({ "a": 1 }), serde_json::json!({ "a": 2 }));
    {
        let store = Directory::open(dir.path()).unwrap();
        assert_eq!(store.note_spec(&name, one.clone()).unwrap(), 1);
        assert_eq!(store.note_spec(&name, one.clone()).unwrap(), 1);
        store.put_status(&name, &BlockReplicationStatus::default()).await.unwrap();
    }
    let store = Directory::open(dir.path()).unwrap();
    assert_eq!(store.note_spec(&name, one).unwrap(), 1);
    assert_eq!(store.note_spec(&name, two).unwrap(), 2);
    assert_eq!(only(&of(&(CLAIM.to_owned() + &replication("web", OF_ROOT))).1).wish, Wish::Run);
}
