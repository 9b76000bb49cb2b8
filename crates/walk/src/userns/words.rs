//! What a process wrote before it ended.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};

use crate::limits;

/// What is in a pipe by now, if it is not too much. Its end is not waited for: whoever else has the
/// other one may keep it for ever.
pub(super) fn so_far(pipe: impl AsFd) -> Vec<u8> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut said = vec![0; limits::WHY_BYTES_MAX];
    let mut filled = 0;
    while filled < said.len() && poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&now)) == Ok(1)
    {
        match read(&pipe, &mut said[filled..]) {
            Ok(0) => break,
            Ok(taken) => filled += taken,
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    said.truncate(filled);
    said
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn words_are_there_also_if_somebody_keeps_the_other_end() {
        let (ours, mut theirs) = std::io::pipe().unwrap();
        assert_eq!(so_far(&ours), b"");
        theirs.write_all(b"last words").unwrap();
        assert_eq!(so_far(&ours), b"last words");
        theirs.write_all(&vec![b'x'; 60_000]).unwrap();
        assert_eq!(so_far(&ours).len(), limits::WHY_BYTES_MAX);
        drop(theirs);
        assert_eq!(so_far(&ours).len(), limits::WHY_BYTES_MAX);
    }
}
