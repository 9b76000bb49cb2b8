//! The keys of the JSON objects, as docs/CLI.md names them.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

/// An object's keys, with the object that each holds, itself or in a list.
#[derive(Debug, Default)]
pub(crate) struct Shape(pub(crate) BTreeMap<String, Option<Shape>>);

impl Shape {
    /// Reads `{a, b: {c}, d: [{e}]}` up to its end.
    fn parse(text: &mut &str) -> Self {
        let mut shape = Self::default();
        *text = text.strip_prefix('{').unwrap();
        loop {
            let end = text.find([',', ':', '}']).unwrap();
            let key = text[..end].trim().to_owned();
            *text = &text[end..];
            let mut held = None;
            if let Some(rest) = text.strip_prefix(':') {
                *text = rest.trim_start().trim_start_matches('[');
                held = Some(Self::parse(text));
                *text = text.trim_start_matches(']');
            }
            shape.0.insert(key, held);
            let (separator, rest) = text.split_at(1);
            *text = rest;
            if separator == "}" {
                return shape;
            }
        }
    }

    /// Every object of the document's line about a verb.
    pub(crate) fn of(verb: &str) -> Vec<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CLI.md");
        let document = fs::read_to_string(path).unwrap();
        let (_, section) = document.split_once("## JSON").unwrap();
        let (_, line) = section.split_once(&format!("\n| {verb} | ")).unwrap();
        let line = line.lines().next().unwrap();
        let objects = line.match_indices("`{").map(|(at, _)| &line[at + 1..]);
        objects.map(|mut text| Self::parse(&mut text)).collect()
    }

    pub(crate) fn check(&self, value: &Value) {
        if let Some(list) = value.as_array() {
            for value in list {
                self.check(value);
            }
            return;
        }
        let object = value.as_object().unwrap();
        let keys: Vec<_> = object.keys().collect();
        let mut sorted = keys.clone();
        sorted.sort();
        assert_eq!(sorted, self.0.keys().collect::<Vec<_>>());
        for (key, held) in &self.0 {
            if let (Some(held), false) = (held, object[key].is_null()) {
                held.check(&object[key]);
            }
        }
    }
}

/// Checks what a verb that has one object printed.
#[track_caller]
pub(crate) fn check(verb: &str, value: &Value) {
    let [shape] = &Shape::of(verb)[..] else {
        panic!("{verb} has several objects")
    };
    shape.check(value);
}
