//! What every storage promises, as a check that its tests run.

use std::ops::Range;

use super::{FileName, Storage};
use crate::{ErrorKind, Result};

/// Tries a storage that holds nothing, and leaves it so. What it does not keep of the promises of
/// [`Storage`], each in a sentence.
pub fn broken_promises(storage: &dyn Storage) -> Vec<String> {
    let mut broken = Vec::new();
    if let Err(error) = try_all(storage, &mut broken) {
        broken.push(format!("it fails: {}", error.chain()));
    }
    broken
}

fn try_all(storage: &dyn Storage, broken: &mut Vec<String>) -> Result<()> {
    missing_files(storage, broken)?;
    ranges(storage, broken)?;
    putting_again(storage, broken)?;
    lists(storage, broken)?;
    let time: FileName = "promises/time".parse()?;
    storage.put(&time, b"1")?;
    let first = storage.modified(&time)?;
    check(
        broken,
        first > 1_600_000_000,
        "a file's time is in seconds since 1970",
    );
    let mut listed = Vec::new();
    storage.list_dated(&"promises".parse()?, &mut |name, length, time| {
        listed.push((name.clone(), length, time));
        Ok(())
    })?;
    check(
        broken,
        listed == [(time.clone(), 1, first)],
        "a list with times has those of the files",
    );
    storage.remove(&time)?;
    Ok(())
}

fn check(broken: &mut Vec<String>, kept: bool, promise: &str) {
    if !kept {
        broken.push(promise.to_owned());
    }
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn missing_files(storage: &dyn Storage, broken: &mut Vec<String>) -> Result<()> {
    let none: FileName = "promises/none".parse()?;
    let missing = Some(ErrorKind::NotFound);
    for (found, what) in [
        (kind(storage.read(&none, 0..1)), "reading"),
        (kind(storage.read_whole(&none, 10)), "reading all of"),
        (kind(storage.length(&none)), "the length of"),
        (kind(storage.modified(&none)), "the time of"),
        (kind(storage.settle(&none)), "settling"),
    ] {
        check(
            broken,
            found == missing,
            &format!("{what} a missing file is NotFound"),
        );
    }
    storage.remove(&none)?;
    Ok(())
}

fn ranges(storage: &dyn Storage, broken: &mut Vec<String>) -> Result<()> {
    let file: FileName = "promises/with+odd=chars:/a.b_c-D".parse()?;
    let bytes: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    storage.put(&file, &bytes)?;
    storage.settle(&file)?;
    let length = bytes.len();
    let cases: [Range<usize>; 5] = [0..length, 0..1, 1000..70_000, length - 1..length, 7..7];
    for range in cases {
        let found = storage.read(&file, range.start as u64..range.end as u64)?;
        let promise = format!("the range {range:?} is what was put");
        check(broken, bytes.get(range) == Some(&found), &promise);
    }
    let end = length as u64;
    for range in [0..end + 1, end - 1..end + 1, end..end + 1, end + 5..end + 9] {
        let found = kind(storage.read(&file, range.clone()));
        let promise = format!("the range {range:?} of a file of {end} bytes is Corrupt");
        check(broken, found == Some(ErrorKind::Corrupt), &promise);
    }
    check(
        broken,
        storage.length(&file)? == end,
        "a file has its length",
    );
    let whole = storage.read_whole(&file, end)?;
    check(broken, whole == bytes, "a whole file is what was put");
    let long = kind(storage.read_whole(&file, end - 1));
    check(
        broken,
        long == Some(ErrorKind::Corrupt),
        "a file that is too long is Corrupt",
    );
    let empty: FileName = "promises/empty".parse()?;
    storage.put(&empty, b"")?;
    check(
        broken,
        storage.length(&empty)? == 0,
        "an empty file has no bytes",
    );
    check(
        broken,
        storage.read_whole(&empty, 0)?.is_empty(),
        "an empty file is read",
    );
    storage.remove(&empty)?;
    storage.remove(&file)
}

fn putting_again(storage: &dyn Storage, broken: &mut Vec<String>) -> Result<()> {
    let file: FileName = "promises/again".parse()?;
    storage.put(&file, b"same")?;
    storage.put(&file, b"same")?;
    let found = storage.read(&file, 0..4)?;
    check(
        broken,
        found == b"same",
        "putting the same again is harmless",
    );
    storage.remove(&file)?;
    storage.remove(&file)?;
    let gone = kind(storage.length(&file));
    check(
        broken,
        gone == Some(ErrorKind::NotFound),
        "a removed file is gone",
    );
    Ok(())
}

fn lists(storage: &dyn Storage, broken: &mut Vec<String>) -> Result<()> {
    let names = [
        "promises/a/2",
        "promises/a-b/3",
        "promises/a/1/x",
        "promises/ab/1",
        "promises/b",
    ];
    for name in names {
        storage.put(&name.parse()?, name.as_bytes())?;
    }
    let list = |prefix: &str| -> Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        storage.list(&prefix.parse()?, &mut |name, length| {
            found.push((name.to_string(), length));
            Ok(())
        })?;
        Ok(found)
    };
    let expected = |names: &[&str]| -> Vec<(String, u64)> {
        (names.iter())
            .map(|name| ((*name).to_owned(), name.len() as u64))
            .collect()
    };
    let mut all = names;
    all.sort_unstable();
    check(
        broken,
        list("promises")? == expected(&all),
        "a list has all names, in order, with lengths",
    );
    let below = expected(&["promises/a/1/x", "promises/a/2"]);
    check(
        broken,
        list("promises/a")? == below,
        "a list has nothing of a name that only begins so",
    );
    // A folder says that it is no folder.
    check(
        broken,
        list("promises/b").map_or(true, |found| found.is_empty()),
        "a file is not below itself",
    );
    check(
        broken,
        list("promises/none")?.is_empty(),
        "a list of nothing is empty",
    );
    let mut told = 0;
    let stopped = storage.list(&"promises".parse()?, &mut |name, _| {
        told += 1;
        Err(crate::Error::new(ErrorKind::Cancelled, name.to_string()))
    });
    let promise = "a list ends with the error of who is told";
    check(
        broken,
        told == 1 && kind(stopped) == Some(ErrorKind::Cancelled),
        promise,
    );
    for name in names {
        storage.remove(&name.parse()?)?;
    }
    check(
        broken,
        list("promises")?.is_empty(),
        "what was removed is not listed",
    );
    Ok(())
}
