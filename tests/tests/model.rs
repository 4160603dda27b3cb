//! The filter against a plain model: random histories, calm and with faults.

use understudy_tests::model::{Mix, judge};

#[test]
fn the_filter_agrees_with_a_plain_model() {
    match judge(Mix::Calm, 1, 2000) {
        Ok(total) => println!("{total}"),
        Err(text) => panic!("{text}"),
    }
}

#[test]
fn histories_with_faults_lose_no_checkpoint() {
    match judge(Mix::Faults, 1, 300) {
        Ok(total) => println!("{total}"),
        Err(text) => panic!("{text}"),
    }
}
