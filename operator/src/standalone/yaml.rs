//! YAML text as values, of bounded size.
//!
//! ```text
//!   a: &a [x, x, x, ...]        a kilobyte of text can refer to itself until it stands for gigabytes:
//!   b: &b [*a, *a, *a, ...]     it is measured first, references followed, and only then read
//!   c:    [*b, *b, *b, ...]
//! ```

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::Value;

/// The most that a file may stand for, in bytes: each value counts for [`VALUE_COST`] and its text. Four
/// times the largest file that is read.
pub const SIZE_MAX: usize = 4 << 20;

/// What a value costs at least, in bytes.
pub const VALUE_COST: usize = 8;

/// The documents of a text; empty ones are left out.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, String> {
    let left = Cell::new(SIZE_MAX);
    for document in serde_yaml::Deserializer::from_str(text) {
        Measure(&left).deserialize(document).map_err(|e| format!("is no YAML: {e}"))?;
    }
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        // By way of YAML's own value, which refuses a key that is there twice.
        let value =
            serde_yaml::Value::deserialize(document).map_err(|e| format!("is no YAML: {e}"))?;
        let value = serde_json::to_value(value).map_err(|e| format!("is no manifest: {e}"))?;
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// Takes what a value stands for off what is left.
#[derive(Clone, Copy)]
struct Measure<'a>(&'a Cell<usize>);

impl Measure<'_> {
    fn pay<E: Error>(self, text: usize) -> Result<(), E> {
        match self.0.get().checked_sub(text.saturating_add(VALUE_COST)) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(E::custom(format_args!(
                "it stands for more than {SIZE_MAX} bytes: write out what it refers to, or split it"
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Measure<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Measure<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.pay(0)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.pay(0)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.pay(0)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<(), E> {
        self.pay(0)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<(), E> {
        self.pay(0)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.pay(0)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.pay(0)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.pay(0)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.pay(text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.pay(0)?;
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        self.pay(0)?;
        while fields.next_entry_seed(self, self)?.is_some() {}
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let ((), value) = tagged.variant_seed(self)?;
        value.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_refers_to_itself_again_and_again_is_refused() {
        let items = |item: &str| vec![item; 300].join(",");
        let text =
            format!("a: &a [{}]\nb: &b [{}]\nc: [{}]\n", items("x"), items("*a"), items("*b"));
        assert!(text.len() < 4000);
        let error = documents(&text).unwrap_err();
        assert!(error.contains("stands for more than"), "{error}");
    }

    #[test]
    fn a_long_text_that_is_referred_to_often_is_refused() {
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 100].join(","));
        assert!(documents(&text).unwrap_err().contains("stands for more than"));
    }

    #[test]
    fn references_within_reason_are_followed() {
        let found = documents("a: &a {k: [1, -2, 3.5, true, ~]}\nb: *a\n---\n---\n!t x\n").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0]["b"], found[0]["a"]);
    }
}
