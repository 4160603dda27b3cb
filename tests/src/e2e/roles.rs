//! The roles are no wider than what a full run has used, by the API server's audit log.
//!
//! ```text
//!   rules of our roles ─► (account, group, resource, verb) …  ─┐
//!   audit log          ─► (account, group, resource, verb) …  ─┴─► each rule was used; nothing was refused
//! ```

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::install::NAMESPACE;
use super::world::{World, text};

/// A right, or its use: account, API group, resource with subresource, verb.
type Right = (String, String, String, String);

/// Rights that a good run does not use, each with its reason.
const UNUSED: [(&str, &str, &str); 13] = [
    // Only when a node has no room for a volume.
    ("understudy-csi-controller", "persistentvolumeclaims", "update"),
    // What exists can be listed; those who ask, as health monitors do, are not installed.
    ("understudy-csi-controller", "replicatedvolumes", "list"),
    // Events repeat only when something goes wrong more than once.
    ("understudy-operator", "events", "patch"),
    ("understudy-csi-controller", "events", "patch"),
    // The suite's cluster has no KubeVirt.
    ("understudy-operator", "virtualmachines", "list"),
    ("understudy-operator", "virtualmachines", "watch"),
    // An installation with cert-manager's Secret makes none.
    ("understudy-operator", "secrets", "create"),
    // The authority is renewed once in eight months, the certificate for metrics once in 16 hours.
    ("understudy-operator", "secrets", "update"),
    // What a patch that makes an object needs beside the right to patch: asked inside the API server.
    ("understudy-operator", "configmaps", "create"),
    // What is there is looked at again when somebody else has written it first.
    ("understudy-operator", "replicatedvolumes", "get"),
    ("understudy-operator", "replicationgroups", "get"),
    ("understudy-csi-controller", "replicationgroups", "get"),
    ("understudy-csi-controller", "replicationgroups", "update"),
];

pub(super) fn play(world: &World) -> Result<()> {
    let Some(log) = world.provider.audit_log() else {
        println!("SKIPPED roles: this provider's audit log cannot be read");
        return Ok(());
    };
    let log = std::fs::read_to_string(log).context("no audit log")?;
    let (used, refused) = uses(&log)?;
    ensure!(refused.is_empty(), "the API server refused what ours asked for:\n{refused:#?}");
    let granted = granted(world)?;
    let is_known = |right: &Right| {
        UNUSED.iter().any(|(account, resource, verb)| {
            right.0 == *account && right.2 == *resource && right.3 == *verb
        })
    };
    let stale: Vec<_> = UNUSED
        .iter()
        .filter(|(account, resource, verb)| {
            !granted.iter().any(|r| r.0 == *account && r.2 == *resource && r.3 == *verb)
        })
        .collect();
    ensure!(stale.is_empty(), "these are excused and nobody grants them:\n{stale:#?}");
    let idle: Vec<&Right> = granted.difference(&used).filter(|right| !is_known(right)).collect();
    ensure!(idle.is_empty(), "nobody used these rights in the whole run:\n{idle:#?}");
    world.step(&format!("{} rights are granted, each was used, none was missing", granted.len()));
    Ok(())
}

/// What our accounts asked for and got, and what they never got.
fn uses(log: &str) -> Result<(BTreeSet<Right>, BTreeSet<Right>)> {
    let prefix = format!("system:serviceaccount:{NAMESPACE}:");
    let (mut used, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for line in log.lines() {
        let event: Value = serde_json::from_str(line)?;
        let user = text(&event["user"]["username"]);
        let Some(account) = user.strip_prefix(&prefix) else { continue };
        let object = &event["objectRef"];
        let mut resource = text(&object["resource"]);
        if let Some(sub) = object["subresource"].as_str() {
            resource = format!("{resource}/{sub}");
        }
        let group = text(&object["apiGroup"]);
        let right = (account.to_owned(), group, resource, text(&event["verb"]));
        if event["responseStatus"]["code"] == 403 {
            refused.insert(right);
            continue;
        }
        // A watch that begins with what is there stands for the list that an older server would need.
        if event["requestURI"].as_str().is_some_and(|uri| uri.contains("sendInitialEvents=true")) {
            used.insert((right.0.clone(), right.1.clone(), right.2.clone(), "list".to_owned()));
        }
        used.insert(right);
    }
    // An API server that has just started refuses until it has read the roles.
    let refused = refused.difference(&used).cloned().collect();
    Ok((used, refused))
}

/// What our roles allow.
fn granted(world: &World) -> Result<BTreeSet<Right>> {
    let base = "/apis/rbac.authorization.k8s.io/v1";
    let mut rights = BTreeSet::new();
    for (bindings, cluster) in [
        (format!("{base}/clusterrolebindings"), true),
        (format!("{base}/namespaces/{NAMESPACE}/rolebindings"), false),
    ] {
        for binding in world.list(&bindings)? {
            let role = text(&binding["roleRef"]["name"]);
            if !role.starts_with("understudy-") {
                continue;
            }
            let path = if cluster {
                format!("{base}/clusterroles/{role}")
            } else {
                format!("{base}/namespaces/{NAMESPACE}/roles/{role}")
            };
            let role = world.get(&path)?.with_context(|| format!("{path} is gone"))?;
            for subject in binding["subjects"].as_array().into_iter().flatten() {
                let rules = role["rules"].as_array().into_iter().flatten();
                rules.for_each(|rule| add(&mut rights, &text(&subject["name"]), rule));
            }
        }
    }
    Ok(rights)
}

fn add(rights: &mut BTreeSet<Right>, account: &str, rule: &Value) {
    let words = |name: &str| -> Vec<String> {
        rule[name].as_array().into_iter().flatten().map(text).collect()
    };
    for group in words("apiGroups") {
        for resource in words("resources") {
            for verb in words("verbs") {
                // The right to approve and sign is asked inside the API server, not over it.
                if resource != "signers" {
                    rights.insert((account.to_owned(), group.clone(), resource.clone(), verb));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_and_a_refusal_are_read_from_the_log() {
        let line = |code: u32| {
            format!(
                r#"{{"verb":"get","user":{{"username":"system:serviceaccount:understudy:understudy-csi-node"}},"objectRef":{{"resource":"nodes","apiGroup":"","subresource":"status"}},"responseStatus":{{"code":{code}}}}}"#
            )
        };
        let (used, refused) = uses(&line(200)).unwrap();
        assert_eq!((used.len(), refused.len()), (1, 0));
        assert_eq!(used.first().unwrap().2, "nodes/status");
        assert_eq!(uses(&line(403)).unwrap(), (BTreeSet::new(), used.clone()));
        let both = format!("{}\n{}", line(403), line(200));
        assert_eq!(uses(&both).unwrap(), (used, BTreeSet::new()));
    }
}
