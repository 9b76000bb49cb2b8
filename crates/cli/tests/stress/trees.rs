//! The trees that are backed up: a number says what is in one. Few different files are in many of
//! them, so that archives share what others forget.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Files that are chunks of their own, and ones that lie together in one.
const LARGE: usize = 4;
const SMALL: usize = 6;
/// How many different ones there are of each.
const KINDS: u8 = 10;
const LARGE_BYTES: usize = 150 << 10;
/// The file that has the tree's number.
const NUMBER: &str = "number";

fn bytes(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    (blake3::Hasher::new().update(seed.as_bytes()))
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// What is in a tree, by names.
fn files(number: u64) -> BTreeMap<String, Vec<u8>> {
    let hash = blake3::hash(&number.to_le_bytes());
    let mut files = BTreeMap::from([(NUMBER.to_owned(), number.to_string().into_bytes())]);
    for (place, byte) in hash.as_bytes()[..LARGE + SMALL].iter().enumerate() {
        let kind = byte % KINDS;
        let length = if place < LARGE {
            LARGE_BYTES
        } else {
            200 << place
        };
        let name = format!("{place}");
        files.insert(name, bytes(&format!("{place} {kind}"), length));
    }
    files
}

/// Makes a folder this tree; what is in it already is not touched.
pub(crate) fn make(folder: &Path, number: u64) {
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in files(number) {
        let path = folder.join(name);
        if fs::read(&path).ok().as_ref() != Some(&bytes) {
            fs::write(path, bytes).unwrap();
        }
    }
}

fn read(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, fs::read(entry.path())?);
    }
    Ok(files)
}

/// Fails unless a folder is this tree byte for byte; without a number, one that says its own.
pub(crate) fn compare(folder: &Path, number: Option<u64>) -> Result<(), String> {
    let found = read(folder).map_err(|e| e.to_string())?;
    let said = (found.get(NUMBER)).and_then(|text| String::from_utf8_lossy(text).parse().ok());
    let number = number.or(said).ok_or("it does not say which it is")?;
    let wanted = files(number);
    if found == wanted {
        return Ok(());
    }
    let differ = wanted.keys().chain(found.keys());
    let differ = differ.filter(|name| found.get(*name) != wanted.get(*name));
    Err(format!("these differ: {:?}", differ.collect::<Vec<_>>()))
}
