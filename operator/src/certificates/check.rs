//! Whether a request may have what it asks for: pure.

use rcgen::{CertificateSigningRequestParams, SanType};

use super::identity::Identity;

/// The node that a service account's token is bound to, as the API server attests it.
pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// The service accounts that have an identity.
pub const ENGINE_ACCOUNT: &str = "understudy-engine";
/// That of the CSI driver's controller.
pub const CSI_CONTROLLER_ACCOUNT: &str = "understudy-csi-controller";

/// What certificates of ours are for.
const USAGES: [&str; 3] = ["digital signature", "client auth", "server auth"];

/// What the API server attests of a request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Who asks.
    pub username: String,
    /// The node that its token is bound to.
    pub node: Option<String>,
    /// What it is to be used for.
    pub usages: Vec<String>,
    /// The request itself, in PEM.
    pub pem: String,
}

/// The identity that is to be signed, and the request; or why not.
pub fn check(
    asked: &Asked,
    namespace: &str,
) -> Result<(Identity, CertificateSigningRequestParams), String> {
    let request = CertificateSigningRequestParams::from_pem(&asked.pem)
        .map_err(|e| format!("the request can't be read, or is not signed by its key: {e}"))?;
    if let Some(usage) = asked.usages.iter().find(|u| !USAGES.contains(&u.as_str())) {
        return Err(format!("usage '{usage}' is not signed here: only {}", USAGES.join(", ")));
    }
    let identity = match request.params.subject_alt_names.as_slice() {
        [SanType::URI(uri)] => uri.as_str().parse::<Identity>()?,
        other => {
            return Err(format!(
                "it names {} identities: one URI must stand there and nothing else",
                other.len()
            ));
        }
    };
    let account = |name: &str| format!("system:serviceaccount:{namespace}:{name}");
    let allowed = match &identity {
        Identity::Engine(node) => {
            if asked.username != account(ENGINE_ACCOUNT) {
                return Err(foreign(&identity, asked, &account(ENGINE_ACCOUNT)));
            }
            match &asked.node {
                Some(own) if own == node => true,
                Some(own) => {
                    return Err(format!("{identity} is asked for from node {own}"));
                }
                None => {
                    return Err(format!(
                        "{identity} is asked for with a token that is bound to no node: it takes \
                         Kubernetes 1.32 and a token projected into the pod"
                    ));
                }
            }
        }
        Identity::CsiController => asked.username == account(CSI_CONTROLLER_ACCOUNT),
        // The operator signs these two by itself.
        Identity::Operator | Identity::Metrics => false,
    };
    if !allowed {
        return Err(foreign(&identity, asked, &account(CSI_CONTROLLER_ACCOUNT)));
    }
    Ok((identity, request))
}

fn foreign(identity: &Identity, asked: &Asked, account: &str) -> String {
    match identity {
        Identity::Operator => format!("{} asks for {identity}, which nobody gets", asked.username),
        _ => format!("{} asks for {identity}, which only {account} gets", asked.username),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn pem(names: &[&str]) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            names.iter().map(|n| SanType::URI((*n).try_into().unwrap())).collect();
        let key = KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    const ENGINE_A: &str = "spiffe://understudy.dev/engine/node-a";
    const ENGINE: &str = "system:serviceaccount:understudy:understudy-engine";
    const CSI: &str = "system:serviceaccount:understudy:understudy-csi-controller";

    fn ask(username: &str, node: Option<&str>, names: &[&str]) -> Result<Identity, String> {
        let asked = Asked {
            username: username.to_owned(),
            node: node.map(str::to_owned),
            usages: vec!["client auth".to_owned(), "server auth".to_owned()],
            pem: pem(names),
        };
        check(&asked, "understudy").map(|(identity, _)| identity)
    }

    #[test]
    fn everybody_gets_their_own_identity() {
        let engine = ask(ENGINE, Some("node-a"), &[ENGINE_A]).unwrap();
        assert_eq!(engine, Identity::Engine("node-a".to_owned()));
        let csi = ask(CSI, None, &["spiffe://understudy.dev/csi-controller"]).unwrap();
        assert_eq!(csi, Identity::CsiController);
    }

    #[test]
    fn nobody_gets_another_identity_or_more_than_one() {
        let operator = "spiffe://understudy.dev/operator";
        let csi = "spiffe://understudy.dev/csi-controller";
        let elsewhere = "system:serviceaccount:other:understudy-engine";
        let table: [(&str, Option<&str>, &[&str], &str); 11] = [
            (ENGINE, Some("node-b"), &[ENGINE_A], "from node node-b"),
            (ENGINE, None, &[ENGINE_A], "bound to no node"),
            (
                CSI,
                Some("node-a"),
                &[ENGINE_A],
                "only system:serviceaccount:understudy:understudy-engine",
            ),
            (elsewhere, Some("node-a"), &[ENGINE_A], "only system:serviceaccount:understudy:"),
            ("admin", Some("node-a"), &[ENGINE_A], "admin asks for engine/node-a"),
            (ENGINE, Some("node-a"), &[csi], "asks for csi-controller"),
            (CSI, None, &[operator], "nobody gets"),
            (ENGINE, Some("node-a"), &[ENGINE_A, csi], "2 identities"),
            (ENGINE, Some("node-a"), &[], "0 identities"),
            (ENGINE, Some("node-a"), &["spiffe://other/engine/node-a"], "is no identity"),
            (
                ENGINE,
                Some("node-a/x"),
                &["spiffe://understudy.dev/engine/node-a/x"],
                "is no identity",
            ),
        ];
        for (username, node, names, words) in table {
            let refusal = ask(username, node, names).unwrap_err();
            assert!(refusal.contains(words), "wanted {words:?} in {refusal}");
        }
    }

    #[test]
    fn a_request_for_another_use_or_that_is_none_is_refused() {
        let mut asked = Asked {
            username: ENGINE.to_owned(),
            node: Some("node-a".to_owned()),
            usages: vec!["cert sign".to_owned()],
            pem: pem(&[ENGINE_A]),
        };
        assert!(check(&asked, "understudy").unwrap_err().contains("usage 'cert sign'"));
        asked.pem = "no request".to_owned();
        assert!(check(&asked, "understudy").unwrap_err().contains("can't be read"));
    }
}
