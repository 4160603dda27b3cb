//! The right kind of certificate, but of another node.

use understudy_core::engine::api::{Address, Generation, Policy, Role, Stage, Start};

use super::pair;
use understudy_tests::harness::engines::Engines;

fn start(pair: &Engines, role: Role, peer: Option<Address>) -> Start {
    Start {
        group: pair.group.clone(),
        generation: pair.generation,
        role,
        members: pair.members.clone(),
        peer,
        policy: Policy::default(),
        inbound: false,
        adopt: false,
    }
}

fn of_node(address: &Address, node: &str) -> Address {
    let host_port = address.host_port().unwrap().to_owned();
    Address::Tls { node: Some(node.to_owned()), host_port }
}

/// Waits until the primary says what somebody's certificate has against the link.
fn trouble(pair: &Engines) -> String {
    let refused = pair.primary.wait_for(&pair.group, "a refusal by identity", |status| {
        status.error.as_ref().is_some_and(|e| e.contains("engine/"))
    });
    refused.unwrap().error.unwrap()
}

#[test]
fn a_link_of_another_node_than_the_primarys_is_refused_until_the_secondary_knows_better() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path(), &[]);
    let from = pair.primary.link_address();
    let other = of_node(&from, "c");
    pair.secondary.start_group(&start(&pair, Role::Secondary, Some(other))).unwrap();
    let why = trouble(&pair);
    assert!(why.contains("this link is of engine/a") && why.contains("engine/c"), "{why}");
    pair.secondary.start_group(&start(&pair, Role::Secondary, Some(from))).unwrap();
    pair.checkpoint().unwrap();
    let status = pair.secondary.group(&pair.group).unwrap();
    assert_eq!(status.stage, Stage::Running);
}

#[test]
fn a_peer_that_is_not_the_node_that_it_should_be_gets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut pair = pair(directory.path(), &[]);
    pair.generation = Generation { number: pair.generation.number + 1, id: 77 };
    let other = of_node(&pair.secondary.link_address(), "x");
    pair.primary.start_group(&start(&pair, Role::Primary, Some(other))).unwrap();
    let why = trouble(&pair);
    assert!(why.contains("its certificate is of engine/b, not of engine/x"), "{why}");
}

#[test]
fn a_peer_in_plaintext_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path(), &[]);
    let peer = Some(Address::Tcp("127.0.0.1:1".to_owned()));
    let error = pair.primary.start_group(&start(&pair, Role::Primary, peer)).unwrap_err();
    assert!(format!("{error:#}").contains("--insecure-plaintext"), "{error:#}");
}
