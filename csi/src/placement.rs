//! On which node a volume is born. Pure.
//!
//! ```text
//!   no wish, or none with a node ─► Any of: all of the installation; the one with most space
//!   wishes, best first           ─► Node: the first that is of this installation and runs the driver
//! ```
//!
//! The first wish is the scheduler's choice: the pod waits there, so no other is tried in its place.

use crate::fault::{Fault, Problem};
use crate::request::Wish;
use crate::volumes::Node;

/// The nodes that a volume may be born on; never empty.
pub fn candidates<'a>(
    wishes: Option<&[Wish]>,
    nodes: &'a [Node],
    installation: &str,
) -> Result<Vec<&'a Node>, Fault> {
    let ours = |node: &&Node| node.installation == installation;
    let exhausted = |text: String| Err(Fault::new(Problem::Exhausted, text));
    let Some(wishes) = wishes else {
        let all: Vec<&Node> = nodes.iter().filter(ours).collect();
        if all.is_empty() {
            return exhausted(format!(
                "no node runs the driver of installation {installation}: look at its pods on the nodes"
            ));
        }
        return Ok(all);
    };
    for wish in wishes {
        if wish.installation.as_deref().is_some_and(|wished| wished != installation) {
            continue;
        }
        let found: Vec<&Node> = nodes
            .iter()
            .filter(ours)
            .filter(|node| wish.node.as_ref().is_none_or(|name| *name == node.name))
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let names: Vec<&str> = wishes.iter().filter_map(|wish| wish.node.as_deref()).collect();
    exhausted(format!(
        "none of the nodes that are asked for ({}) runs the driver of installation {installation}",
        if names.is_empty() { "of another installation".to_owned() } else { names.join(", ") }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, installation: &str) -> Node {
        Node { name: name.to_owned(), installation: installation.to_owned(), engine: None }
    }

    fn wish(node: Option<&str>, installation: Option<&str>) -> Wish {
        Wish { node: node.map(str::to_owned), installation: installation.map(str::to_owned) }
    }

    fn chosen(wishes: Option<&[Wish]>) -> Result<Vec<String>, Fault> {
        let nodes = [node("a", "prod"), node("b", "prod"), node("c", "test")];
        let found = candidates(wishes, &nodes, "prod")?;
        Ok(found.into_iter().map(|node| node.name.clone()).collect())
    }

    #[test]
    fn the_first_wish_that_can_be_had_is_had() {
        let wishes = [wish(Some("b"), Some("prod")), wish(Some("a"), Some("prod"))];
        assert_eq!(chosen(Some(&wishes)).unwrap(), ["b"]);
        let wishes = [wish(Some("gone"), None), wish(Some("a"), None)];
        assert_eq!(chosen(Some(&wishes)).unwrap(), ["a"]);
    }

    #[test]
    fn without_a_node_in_it_a_wish_leaves_the_choice_to_us() {
        assert_eq!(chosen(None).unwrap(), ["a", "b"]);
        assert_eq!(chosen(Some(&[wish(None, Some("prod"))])).unwrap(), ["a", "b"]);
    }

    #[test]
    fn nodes_of_another_installation_are_no_answer() {
        let wishes = [wish(Some("c"), Some("test")), wish(Some("c"), None)];
        let fault = chosen(Some(&wishes)).unwrap_err();
        assert_eq!(fault.problem, Problem::Exhausted);
        assert!(fault.message.contains("prod") && fault.message.contains('c'), "{fault}");
        assert_eq!(candidates(None, &[], "prod").unwrap_err().problem, Problem::Exhausted);
    }
}
