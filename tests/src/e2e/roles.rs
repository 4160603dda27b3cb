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
const UNUSED: [(&str, &str, &str); 6] = [
    // Events repeat only when something goes wrong more than once.
    ("understudy-operator", "events", "patch"),
    ("understudy-csi-controller", "events", "patch"),
    // The suite's cluster has no KubeVirt.
    ("understudy-operator", "virtualmachines", "get"),
    ("understudy-operator", "virtualmachines", "list"),
    ("understudy-operator", "virtualmachines", "watch"),
    // An installation with cert-manager's Secret makes none.
    ("understudy-operator", "secrets", "create"),
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
    let idle: Vec<&Right> = granted.difference(&used).filter(|right| !is_known(right)).collect();
    ensure!(idle.is_empty(), "nobody used these rights in the whole run:\n{idle:#?}");
    world.step(&format!("{} rights are granted, each was used, none was missing", granted.len()));
    Ok(())
}

/// What our accounts asked for, and what they were refused.
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
            refused.insert(right.clone());
        }
        used.insert(right);
    }
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
            let path = match cluster {
                true => format!("{base}/clusterroles/{role}"),
                false => format!("{base}/namespaces/{NAMESPACE}/roles/{role}"),
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
        assert_eq!(uses(&line(403)).unwrap().1.len(), 1);
    }
}
