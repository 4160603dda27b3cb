//! A copy whose disk or node is gone for good is made anew, and no sooner.

use std::time::Duration;

use understudy_core::engine::api::Uuid;
use understudy_core::units::ByteLen;
use understudy_crds::conditions::{ACCEPTED, ENGINES_REACHABLE, PROTECTED, RECONCILED};

use super::Bench;

const SHORT: Duration = Duration::from_secs(299);

impl Bench {
    /// The disk of a node is replaced: its engine has an empty pool.
    fn replace_disk(&self, node: &str, pool: u128) {
        let mut machines = self.world.machines();
        let machine = machines.get_mut(node).unwrap();
        machine.pool = Uuid(pool);
        machine.groups.clear();
        machine.replicas.clear();
    }

    fn cut(&self, cut: bool) {
        *self.world.cut.lock().unwrap() = cut;
    }

    /// Two looks with this much time between them.
    async fn look_again_after(&self, span: Duration) {
        self.once().await;
        self.later(span);
        self.once().await;
    }

    fn copy(&self) -> String {
        let side = self.group().secondary.unwrap();
        format!("{} {}", side.node, side.pool.parse::<Uuid>().unwrap().0)
    }
}

#[tokio::test]
async fn a_secondary_whose_disk_was_replaced_gets_a_new_copy_after_five_minutes() {
    for asked in [None, Some("b".to_owned())] {
        let mut bench = Bench::new();
        bench.run().await;
        bench.desired.secondary = asked;
        bench.replace_disk("b", 99);
        bench.cut(true);
        bench.look_again_after(SHORT).await;
        assert_eq!(bench.copy(), "b 2");
        let words = bench.message(RECONCILED);
        assert!(words.contains("after 5 minutes a new copy is made there"), "{words}");
        assert!(bench.message(ENGINES_REACHABLE).contains("Reconciled says when"));
        assert!(bench.world.machines()["b"].replicas.is_empty());
        bench.later(Duration::from_secs(1));
        bench.once().await;
        assert_eq!(bench.copy(), "b 99");
        bench.cut(false);
        bench.run().await;
        assert_eq!(bench.reason(PROTECTED), "Running");
        assert_eq!(bench.world.machines()["b"].replicas.len(), 2);
    }
}

#[tokio::test]
async fn a_pool_that_is_mounted_late_is_taken_up_again_however_long_its_node_was_away() {
    let bench = Bench::new();
    bench.run().await;
    let before = bench.world.machines()["b"].clone();
    bench.world.machines().get_mut("b").unwrap().up = false;
    bench.cut(true);
    bench.look_again_after(SHORT * 10).await;
    bench.world.machines().get_mut("b").unwrap().up = true;
    bench.replace_disk("b", 99);
    bench.look_again_after(SHORT).await;
    assert_eq!(bench.copy(), "b 2");
    bench.world.machines().insert("b".to_owned(), before.clone());
    bench.cut(false);
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running");
    // The next time counts anew.
    bench.replace_disk("b", 99);
    bench.cut(true);
    bench.look_again_after(SHORT).await;
    assert_eq!(bench.copy(), "b 2");
}

#[tokio::test]
async fn no_copy_is_given_up_for_a_wrong_address_or_a_primary_that_does_not_serve() {
    type Row = (fn(&Bench), &'static str);
    let table: [Row; 4] = [
        (|b| b.replace_disk("b", 3), "that pool is also c's: correct the addresses"),
        (|b| b.replace_disk("b", 1), "that pool is also a's"),
        // Its session with the copy lives: only we are at the wrong address.
        (|b| b.cut(false), "has a session with the copy"),
        (
            |b| {
                let mut machines = b.world.machines();
                let a = machines.get_mut("a").unwrap();
                a.replicas.remove(&"data".parse().unwrap());
            },
            "has lost replicas",
        ),
    ];
    for (change, remedy) in table {
        let bench = Bench::new();
        bench.run().await;
        bench.replace_disk("b", 99);
        bench.cut(true);
        change(&bench);
        bench.look_again_after(SHORT * 10).await;
        bench.once().await;
        assert_eq!(bench.copy(), "b 2");
        let words = bench.message(RECONCILED);
        assert!(words.contains(remedy), "{words}");
    }
}

#[tokio::test]
async fn another_pool_of_the_primary_is_never_taken() {
    let bench = Bench::new();
    bench.run().await;
    bench.replace_disk("a", 99);
    bench.cut(true);
    bench.look_again_after(SHORT * 10).await;
    bench.once().await;
    assert_eq!(bench.group().primary.pool.parse::<Uuid>().unwrap(), Uuid(1));
    assert!(bench.world.machines()["a"].replicas.is_empty());
}

#[tokio::test]
async fn a_secondary_whose_node_is_gone_is_replaced_only_where_nobody_named_it() {
    for (asked, end) in [(None, "c 3"), (Some("b".to_owned()), "b 2")] {
        let mut bench = Bench::new();
        bench.run().await;
        bench.desired.secondary = asked.clone();
        bench.once().await;
        bench.world.machines().remove("b");
        bench.cut(true);
        bench.look_again_after(SHORT).await;
        assert_eq!((bench.copy(), bench.reason(ACCEPTED)), ("b 2".into(), "UnknownNode".into()));
        let words = bench.message(ACCEPTED);
        match &asked {
            None => assert!(words.contains("a new copy is made on c"), "{words}"),
            Some(_) => assert!(words.starts_with("spec.secondary.node: no node b"), "{words}"),
        }
        bench.later(Duration::from_secs(10));
        bench.once().await;
        assert_eq!(bench.copy(), end);
    }
}

#[tokio::test]
async fn a_node_that_is_gone_with_the_copy_is_named_where_there_is_no_other() {
    let mut bench = Bench::new();
    bench.world.machines().remove("c");
    bench.run().await;
    bench.desired.secondary = None;
    bench.world.machines().remove("b");
    bench.cut(true);
    bench.look_again_after(SHORT * 10).await;
    let words = bench.message(ACCEPTED);
    assert!(words.contains("the node b, which keeps the copy, is gone"), "{words}");
    assert!(words.contains("there is no node but a"), "{words}");
    assert_eq!(bench.copy(), "b 2");
}

#[tokio::test]
async fn of_several_nodes_that_could_follow_one_that_is_gone_the_roomiest_does() {
    let mut bench = Bench::new();
    bench.world.machines().get_mut("c").unwrap().available = Some(ByteLen(9));
    bench.run().await;
    bench.desired.secondary = None;
    let d = bench.world.machines()["c"].clone();
    let d = crate::fake::Machine { pool: Uuid(4), available: Some(ByteLen(10)), ..d };
    bench.world.machines().insert("d".to_owned(), d);
    bench.world.machines().remove("b");
    bench.cut(true);
    bench.look_again_after(SHORT * 10).await;
    bench.once().await;
    assert_eq!(bench.copy(), "d 4");
}
