//! Counts requests as they pass, byte by byte as they come.

/// The longest head that is looked at.
const HEAD_MAX: usize = 64 << 10;

/// What went through, counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) lists: u64,
    pub(crate) heads: u64,
    pub(crate) others: u64,
    /// Connections.
    pub(crate) connections: u64,
    /// Bytes to the server, heads included.
    pub(crate) sent: u64,
    /// Bytes from it.
    pub(crate) received: u64,
}

impl Traffic {
    pub(crate) fn requests(&self) -> u64 {
        self.puts + self.gets + self.lists + self.heads + self.others
    }

    fn add(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("PUT", _)) => self.puts += 1,
            Some(("GET", target)) if is_list(target) => self.lists += 1,
            Some(("GET", _)) => self.gets += 1,
            Some(("HEAD", _)) => self.heads += 1,
            _ => self.others += 1,
        }
    }
}

fn is_list(target: &str) -> bool {
    target.contains("list-type=")
}

/// What comes through one connection.
#[derive(Debug)]
pub(crate) enum Watch {
    /// The head of a request, as far as it is there.
    Head(Vec<u8>),
    /// So many bytes of a body are still to come.
    Body(u64),
    /// It is not known any more what is a head.
    Lost,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self::Head(Vec::new())
    }

    /// Counts the requests whose heads end in these bytes.
    pub(crate) fn see(&mut self, mut bytes: &[u8], traffic: &mut Traffic) {
        while !bytes.is_empty() {
            match self {
                Self::Lost => return,
                Self::Body(left) => {
                    let passed = bytes
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= passed as u64;
                    bytes = &bytes[passed..];
                    if *left == 0 {
                        *self = Self::new();
                    }
                }
                Self::Head(head) => {
                    head.push(bytes[0]);
                    bytes = &bytes[1..];
                    if head.ends_with(b"\r\n\r\n") {
                        let text = String::from_utf8_lossy(head).into_owned();
                        traffic.add(text.lines().next().unwrap_or_default());
                        *self = body(&text).map_or(Self::Lost, |length| match length {
                            0 => Self::new(),
                            length => Self::Body(length),
                        });
                    } else if head.len() > HEAD_MAX {
                        *self = Self::Lost;
                    }
                }
            }
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost)
    }
}

/// The length of what follows a head; none if the head does not say it.
fn body(head: &str) -> Option<u64> {
    let mut length = Some(0);
    for line in head.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok(),
            "transfer-encoding" => return None,
            _ => {}
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::{Traffic, Watch};

    #[test]
    fn requests_are_counted_however_they_are_cut() {
        let text = b"PUT /b/1 HTTP/1.1\r\nContent-Length: 24\r\n\r\nGET /not HTTP/1.1\r\n\r\n\0\0\0\
                     GET /b?list-type=2 HTTP/1.1\r\n\r\nHEAD /b/1 HTTP/1.1\r\n\r\nGET /b/1 HTTP/1.1\r\n\r\n";
        for piece in 1..text.len() {
            let (mut watch, mut traffic) = (Watch::new(), Traffic::default());
            for part in text.chunks(piece) {
                watch.see(part, &mut traffic);
            }
            let Traffic {
                puts,
                gets,
                lists,
                heads,
                ..
            } = traffic;
            assert_eq!((puts, gets, lists, heads), (1, 1, 1, 1));
            assert_eq!(traffic.requests(), 4);
            assert!(!watch.is_lost());
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_told() {
        let (mut watch, mut traffic) = (Watch::new(), Traffic::default());
        let head = b"PUT /b/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        watch.see(head, &mut traffic);
        assert!(watch.is_lost());
    }
}
