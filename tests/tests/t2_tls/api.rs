//! The engine API over TLS: who may call what, and what a client is told.

use understudy_core::engine::api::{Address, Refusal};
use understudy_core::engine::client::{ClientError, EngineClient};
use understudy_tests::harness::certs::Authority;

use super::{issued, pair};

#[test]
fn each_identity_may_do_what_the_table_says_and_is_told_what_it_may_not() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path(), &[]);
    let api = pair.primary.secure_api().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (identity, checkpoint, capacity) in
        [("operator", true, true), ("csi-controller", false, true), ("engine/b", false, false)]
    {
        let (_dir, tls) = issued(pair.authority().unwrap(), identity);
        runtime.block_on(async {
            let client = EngineClient::connect_with(&api, Some(&tls)).await.unwrap();
            client.status().await.unwrap();
            client.health().await.unwrap();
            let (group, generation) = (&pair.group, pair.generation);
            for (may, done) in [
                (checkpoint, client.checkpoint(group, generation).await.map(drop)),
                (capacity, client.capacity().await.map(drop)),
            ] {
                match done {
                    Ok(()) => assert!(may, "{identity}"),
                    Err(ClientError::Refused { refusal: Refusal::WrongState, message }) => {
                        assert!(!may && message.contains(identity), "{message}");
                        assert!(message.contains("may not call"), "{message}");
                    }
                    Err(e) => panic!("{identity}: {e}"),
                }
            }
        });
    }
}

#[test]
fn a_client_that_is_refused_is_told_why_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path(), &[]);
    let api = pair.primary.secure_api().unwrap();
    let host_port = api.host_port().unwrap().to_owned();
    let other = Address::Tls { node: Some("b".to_owned()), host_port };
    let (_good, good) = issued(pair.authority().unwrap(), "operator");
    let (_bad, bad) = issued(&Authority::new().unwrap(), "operator");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let told = async |address: &Address, tls| {
            let connected = EngineClient::connect_with(address, tls).await;
            let text = connected.unwrap_err().to_string();
            assert!(text.len() < 250 && !text.contains('\n'), "{text}");
            text
        };
        let text = told(&other, Some(&good)).await;
        assert!(text.ends_with("its certificate is of engine/a, not of engine/b"), "{text}");
        let text = told(&api, Some(&bad)).await;
        assert!(text.contains("not in our ca.crt"), "{text}");
        let text = told(&api, None).await;
        assert!(text.contains("--tls"), "{text}");
        // Each at the other's door: an engine's link is no API.
        let text = told(&pair.primary.link_address(), Some(&good)).await;
        assert!(text.contains("protocol") || text.contains("refused our certificate"), "{text}");
    });
}

#[test]
fn a_client_whose_authority_only_the_engine_does_not_know_is_told_that_it_was_refused() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path(), &[]);
    let stranger = Authority::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    stranger.issue(dir.path(), "operator").unwrap();
    // It trusts the engine's authority, and its own.
    let both = format!("{}{}", stranger.pem(), pair.authority().unwrap().pem());
    std::fs::write(dir.path().join("ca.crt"), both).unwrap();
    let tls = understudy_core::engine::client::Tls::open(dir.path(), None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let api = pair.primary.secure_api().unwrap();
        let error = EngineClient::connect_with(&api, Some(&tls)).await.unwrap_err().to_string();
        assert!(error.contains("it refused our certificate: it is of an authority"), "{error}");
    });
}
