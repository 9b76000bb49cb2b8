//! The task log of a backup, as an archive keeps it: readable text, capped, and without what looks
//! like a secret. Nothing that is wrong with it fails a backup.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits::TASK_LOG_KEPT;

/// Room for the line between the two halves of a log that is too long.
const CUT_LINE: usize = 256;
/// Bytes that are kept of the beginning and of the end of a log that is too long.
const HALF: usize = (TASK_LOG_KEPT - CUT_LINE) / 2;

/// What stands for a line that looks like a secret.
const REDACTED: &str = "[a line that looks like a secret was left out]";

/// Words of lines that may hold a secret, in lower case.
const SECRETS: [&str; 6] = [
    "password",
    "passphrase",
    "secret",
    "token",
    "key=",
    "authorization:",
];

/// Reads a task log as it will be kept.
pub(crate) fn read(path: &Path) -> Result<String> {
    let failed = |e| {
        let what = format!("cannot read the task log {}", shown(path));
        Error::with_source(ErrorKind::Invalid, what, e)
    };
    // Opening a FIFO would wait for whoever writes to it.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        let what = format!("the task log {} is not a file", shown(path));
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length <= TASK_LOG_KEPT as u64 {
        let bytes = part(&file, 0, TASK_LOG_KEPT).map_err(failed)?;
        return Ok(capped(redacted(&bytes)));
    }
    let head = part(&file, 0, HALF).map_err(failed)?;
    let tail = part(&file, length - HALF as u64, HALF).map_err(failed)?;
    // Half a line does not show whether it is a secret's.
    let head_end = head
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let tail_start = (tail.iter().position(|b| *b == b'\n')).map_or(tail.len(), |at| at + 1);
    let head = redacted(&head[..head_end]);
    let tail = redacted(&tail[tail_start..]);
    let cut = length - head_end as u64 - (HALF - tail_start) as u64;
    Ok(joined(&head, &tail, cut))
}

/// A text without lines that look like secrets.
pub(crate) fn redacted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut kept = String::with_capacity(text.len());
    let mut sealed = false;
    for line in text.split_inclusive('\n') {
        let lower = line.to_lowercase();
        let begins = lower.contains("-----begin");
        if begins || sealed || SECRETS.iter().any(|word| lower.contains(word)) {
            // Of a block one line stands for all.
            if !sealed {
                kept.push_str(REDACTED);
                kept.push('\n');
            }
            sealed = (begins || sealed) && !lower.contains("-----end");
        } else {
            kept.push_str(line);
        }
    }
    kept
}

fn part(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut read = 0;
    while read < length {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// A text that may have grown while it was made readable.
fn capped(text: String) -> String {
    if text.len() <= TASK_LOG_KEPT {
        return text;
    }
    let (head, tail) = text.split_at(cut_before(&text, text.len() / 2));
    joined(head, tail, 0)
}

/// The beginning of one and the end of the other, with what was between them and left out.
fn joined(head: &str, tail: &str, cut: u64) -> String {
    let head_kept = &head[..cut_before(head, HALF)];
    let mut start = tail.len().saturating_sub(HALF);
    while !tail.is_char_boundary(start) {
        start += 1;
    }
    let tail_kept = &tail[start..];
    let more = head.len() - head_kept.len() + tail.len() - tail_kept.len();
    let cut = cut + more as u64;
    let end = if head_kept.ends_with('\n') { "" } else { "\n" };
    format!("{head_kept}{end}[{cut} bytes of this log were left out here]\n{tail_kept}")
}

/// The last place not behind this one where a text can be cut.
pub(crate) fn cut_before(text: &str, most: usize) -> usize {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_look_like_secrets_are_left_out() {
        let log =
            b"a\nPassword=x\nb token: y\n-----BEGIN KEY-----\nabc\n-----END KEY-----\nc\xff\n";
        let kept = redacted(log);
        assert_eq!(
            kept,
            format!("a\n{REDACTED}\n{REDACTED}\n{REDACTED}\nc\u{fffd}\n")
        );
    }

    #[test]
    fn a_text_that_grows_is_capped() {
        let kept = capped(redacted(&vec![0xff; TASK_LOG_KEPT]));
        assert!(kept.len() <= TASK_LOG_KEPT, "{}", kept.len());
        assert!(kept.contains("bytes of this log were left out here"));
    }
}
