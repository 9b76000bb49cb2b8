//! What is fuzzed: functions that take any bytes as what the other end sent and must return, within
//! the limits and without a panic. Public so that tests and the search of `snapkeep_fuzz` can call
//! them; nothing else should.
//!
//! The corpus is in `fuzz/corpus/NAME/` for each function's name: what walkers said about small
//! trees, and whatever was found.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use snapkeep_api::Result;
use snapkeep_api::tree::{
    Content, EntryKind, Found, Judgement, KnownTree, Name, Step, Told, TreeSource,
};
use snapkeep_fuzz::{Target, Trace};

use crate::limits;
use crate::stream::{decode, decode_answers, decode_request, header};
use crate::{Options, Pull, Request};

/// Every function to fuzz and its name.
pub const TARGETS: [(&str, Target); 2] = [("walker", walker), ("message", message)];

/// Where the corpus of the target of this name is.
pub fn corpus_folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

/// All that a walker says, as [`Pull`] takes it.
///
/// # Panics
/// If something comes out that a source must not tell.
pub fn walker(data: &[u8]) -> u64 {
    let mut trace = Trace::new();
    if let Err(error) = pull(data, &mut trace) {
        trace.words(&error.chain());
    }
    trace.end()
}

/// One message, of whoever says it; the first bytes are its header.
pub fn message(data: &[u8]) -> u64 {
    let mut trace = Trace::new();
    let Some((first, payload)) = data.split_first_chunk::<{ limits::HEADER_BYTES }>() else {
        return trace.end();
    };
    match header(*first) {
        Err(fault) => trace.words(fault.0),
        Ok(header) => {
            trace.step("kind", header.kind.number().into());
            let faults = [
                decode(header.kind, payload).err(),
                decode_request(payload).err(),
                decode_answers(payload).err(),
            ];
            for fault in faults {
                trace.words(fault.map_or("good", |fault| fault.0));
            }
        }
    }
    trace.end()
}

fn pull(data: &[u8], trace: &mut Trace) -> Result<()> {
    let Ok((ours, mut theirs)) = UnixStream::pair() else {
        return Ok(());
    };
    // The socket has room for it all, and for what is answered.
    let all_there = theirs.set_nonblocking(true);
    let all_there = all_there.and_then(|()| theirs.write_all(data));
    let all_there = all_there.and_then(|()| theirs.shutdown(Shutdown::Write));
    if all_there.is_err() {
        trace.words("too much");
        return Ok(());
    }
    let request = Request {
        directory: "/".into(),
        sources: vec![b"./".to_vec()],
        exclude: Vec::new(),
        ask: true,
    };
    let options = Options {
        hang_limit: Duration::from_secs(10),
        ..Options::default()
    };
    let mut pull = Pull::new(OwnedFd::from(ours), &request, options)?;
    let mut depth = 0_usize;
    let mut buffer = [0; 5000];
    while let Some(step) = pull.next(&mut ByName)? {
        match step {
            Step::Enter(told) => {
                check(&told, depth == 0);
                trace.step("enter", u64::from(told.entry.is_some()));
                depth += 1;
            }
            Step::Leave => {
                depth = depth.checked_sub(1).unwrap_or_else(|| panic!("left twice"));
                trace.step("leave", 0);
            }
            Step::Entry(told) => {
                check(&told, false);
                let kind = told.entry.map(|entry| entry.kind);
                if let Some(EntryKind::File { size, .. }) = kind {
                    read(&mut pull, size, &mut buffer, trace)?;
                } else {
                    trace.words(&format!("{kind:?}")[..4]);
                }
            }
            Step::Problem(problem) => {
                assert!(!problem.why.chars().any(char::is_control), "lines");
                trace.words("problem");
            }
        }
    }
    assert_eq!(depth, 0, "the end within the tree");
    Ok(())
}

fn check(told: &Told, root: bool) {
    assert_eq!(told.name.is_none(), root, "a name at the wrong place");
    assert_eq!(told.entry.is_none(), told.judged == Judgement::Known);
    if let Some(entry) = &told.entry {
        assert!(entry.check().is_ok(), "an impossible entry");
    }
}

fn read(pull: &mut Pull, size: u64, buffer: &mut [u8], trace: &mut Trace) -> Result<()> {
    let mut position = 0_u64;
    loop {
        match pull.read(buffer)? {
            Content::Data(length) => {
                position += u64::try_from(length).unwrap_or(u64::MAX);
                trace.words("data");
            }
            Content::Hole(length) => {
                position = position.saturating_add(length);
                trace.words("hole");
            }
            Content::End { changed } => {
                assert!(changed.is_some() || position == size, "a short file");
                trace.step("end", u64::from(changed.is_some()));
                return Ok(());
            }
            Content::Lost(_) => {
                trace.words("lost");
                return Ok(());
            }
        }
        assert!(position <= size, "a long file");
    }
}

/// Knows what begins with a `k`, and doubts what begins with an `a`.
struct ByName;

impl KnownTree for ByName {
    fn judge(&mut self, name: &Name, _: &Found) -> Result<Judgement> {
        Ok(match name.as_bytes().first() {
            Some(b'k') => Judgement::Known,
            Some(b'a') => Judgement::Audit,
            _ => Judgement::Read,
        })
    }
}
