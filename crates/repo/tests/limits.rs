//! The document of the format names every limit of the code, with its value.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

/// What the code says: `pub const NAME: type = VALUE;`, VALUE a number, a shifted one, or the
/// largest signed offset.
fn of_the_code() -> BTreeMap<&'static str, u64> {
    let number = |text: &str| text.replace('_', "").parse::<u64>().unwrap();
    let value = |text: &str| match text.split_once(" << ") {
        Some((number_of, bits)) => number(number_of) << number(bits),
        None if text == "i64::MAX as u64" => i64::MAX.unsigned_abs(),
        None => number(text),
    };
    (include_str!("../src/limits.rs").lines())
        .filter_map(|line| line.strip_prefix("pub const ")?.strip_suffix(';'))
        .map(|line| {
            let (name, rest) = line.split_once(": ").unwrap();
            (name, value(rest.split_once(" = ").unwrap().1))
        })
        .collect()
}

/// What the document says: rows of its table of limits.
fn of_the_document() -> BTreeMap<&'static str, u64> {
    (include_str!("../../../docs/FORMAT.md").lines())
        .skip_while(|line| *line != "| limit | value | constant |")
        .filter_map(|line| {
            let mut cells = line.strip_suffix("` |")?.rsplit(" | ");
            let name = cells.next()?.strip_prefix('`')?;
            let value = cells.next()?.replace(',', "").parse().ok()?;
            Some((name, value))
        })
        .collect()
}

#[test]
fn the_document_names_every_limit_with_its_value() {
    let code = of_the_code();
    assert!(code.len() > 15, "{code:?}");
    assert_eq!(of_the_document(), code);
}
