//! Lines from a socket, as long as they may be.

use std::io::{self, Read};

use crate::limits;

/// Takes lines out of what is received.
#[derive(Debug)]
pub(crate) struct Lines {
    /// What was received and not taken.
    buffer: Vec<u8>,
    /// So much of it has no newline.
    searched: usize,
}

/// What is there.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Received {
    /// A line, without its newline.
    Line(Vec<u8>),
    /// Nothing whole yet.
    Part,
    /// The end of the socket. What came of a last line is lost.
    End,
    /// The line is longer than it may be.
    TooLong,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            searched: 0,
        }
    }

    /// A line that was received already, or `Part`, or `TooLong`.
    pub(crate) fn take(&mut self) -> Received {
        let newline = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let Some(newline) = newline else {
            self.searched = self.buffer.len();
            return if self.searched >= limits::MESSAGE_BYTES_MAX {
                Received::TooLong
            } else {
                Received::Part
            };
        };
        let end = self.searched + newline;
        if end >= limits::MESSAGE_BYTES_MAX {
            return Received::TooLong;
        }
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(end);
        self.searched = 0;
        Received::Line(line)
    }

    /// Receives once, and takes a line if that makes one whole.
    pub(crate) fn receive(&mut self, mut from: impl Read) -> io::Result<Received> {
        let had = self.buffer.len();
        self.buffer.resize(had + limits::RECEIVE_BYTES, 0);
        let received = from.read(&mut self.buffer[had..]);
        let length = received.as_ref().map_or(0, |length| *length);
        self.buffer.truncate(had + length);
        match received {
            Ok(0) => Ok(Received::End),
            Ok(_) => Ok(self.take()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Received::Part),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_however_they_arrive() {
        let mut lines = Lines::new();
        assert_eq!(lines.receive(&b"ab"[..]).unwrap(), Received::Part);
        assert_eq!(
            lines.receive(&b"c\nd\n\ne"[..]).unwrap(),
            Received::Line(b"abc".into())
        );
        assert_eq!(lines.take(), Received::Line(b"d".into()));
        assert_eq!(lines.take(), Received::Line(b"".into()));
        assert_eq!(lines.take(), Received::Part);
        assert_eq!(
            lines.receive(&b"\n"[..]).unwrap(),
            Received::Line(b"e".into())
        );
        assert_eq!(lines.receive(&b""[..]).unwrap(), Received::End);
    }

    #[test]
    fn a_line_is_at_most_as_long_as_it_may_be() {
        for (length, good) in [
            (limits::MESSAGE_BYTES_MAX - 1, true),
            (limits::MESSAGE_BYTES_MAX, false),
        ] {
            let mut lines = Lines::new();
            let mut bytes = vec![b'x'; length];
            bytes.push(b'\n');
            let mut from = &bytes[..];
            let received = loop {
                let received = lines.receive(&mut from).unwrap();
                if received != Received::Part {
                    break received;
                }
            };
            assert_eq!(matches!(received, Received::Line(_)), good, "{length}");
            assert_eq!(received == Received::TooLong, !good, "{length}");
        }
    }
}
