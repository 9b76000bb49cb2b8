//! Where a server listens, and NBD URIs (doc/uri.md beside proto.md).
//!
//! Only Unix sockets and TCP on loopback: the protocol is spoken in the clear here, so it must not
//! leave the machine.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// The port IANA gave to the protocol.
const DEFAULT_PORT: u16 = 10809;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// TCP; anything but loopback is refused when it is used.
    Tcp(SocketAddr),
}

impl Address {
    /// The NBD URI of an export at this address, such as
    /// `nbd+unix:///disk0?socket=/run/a.sock` or `nbd://127.0.0.1:10809/disk0`.
    pub fn uri(&self, export: &str) -> String {
        let mut uri = match self {
            Self::Unix(_) => "nbd+unix:///".to_owned(),
            Self::Tcp(address) => format!("nbd://{address}/"),
        };
        percent_encode(export.as_bytes(), &mut uri);
        if let Self::Unix(path) = self {
            uri.push_str("?socket=");
            percent_encode(path.as_os_str().as_bytes(), &mut uri);
        }
        uri
    }

    /// The address and the export's name in an NBD URI. Fails with [`ErrorKind::Invalid`] if it is
    /// none, and with [`ErrorKind::Unsupported`] if it wants TLS, another transport or a host that
    /// is not loopback.
    pub fn parse_uri(uri: &str) -> Result<(Self, String)> {
        let invalid = |what: &str| {
            Error::new(
                ErrorKind::Invalid,
                format!("{uri:?} is not an NBD URI: {what}"),
            )
        };
        let unsupported = |what: &str| {
            Error::new(
                ErrorKind::Unsupported,
                format!("cannot use {uri:?}: {what}"),
            )
        };
        if uri.len() > 4 * limits::MAX_STRING_BYTES {
            return Err(Error::new(ErrorKind::Invalid, "an NBD URI is too long"));
        }
        let (scheme, rest) = uri
            .split_once("://")
            .ok_or_else(|| invalid("it has no scheme"))?;
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let export = String::from_utf8(
            percent_decode(export).ok_or_else(|| invalid("its export is badly encoded"))?,
        )
        .map_err(|_not_text| invalid("its export is not UTF-8"))?;
        if export.len() > limits::MAX_STRING_BYTES {
            return Err(invalid("its export's name is too long"));
        }
        let address = match scheme {
            "nbd+unix" => {
                if !authority.is_empty() {
                    return Err(invalid("a Unix socket has no host"));
                }
                let socket = query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix("socket="));
                let path = percent_decode(socket.ok_or_else(|| invalid("it has no socket=PATH"))?)
                    .filter(|path| !path.is_empty() && !path.contains(&0))
                    .ok_or_else(|| invalid("its socket is badly encoded"))?;
                Self::Unix(PathBuf::from(OsStr::from_bytes(&path)))
            }
            "nbd" => Self::Tcp(
                parse_host(authority).ok_or_else(|| invalid("its host is not an IP address"))?,
            ),
            "nbds" | "nbds+unix" | "nbds+vsock" => {
                return Err(unsupported("TLS is not spoken here"));
            }
            "nbd+vsock" => return Err(unsupported("vsock is not spoken here")),
            _ => return Err(invalid("its scheme is unknown")),
        };
        address.check()?;
        Ok((address, export))
    }

    /// Refuses what would leave the machine.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Unix(_) => Ok(()),
            Self::Tcp(address) if address.ip().is_loopback() => Ok(()),
            Self::Tcp(address) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "NBD is spoken without encryption, so only on loopback, and {address} is not"
                ),
            )),
        }
    }
}

/// The path of the socket, or `IP:PORT`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

fn parse_host(authority: &str) -> Option<SocketAddr> {
    if let Ok(address) = authority.parse() {
        return Some(address);
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => {
            (host, port.parse().ok()?)
        }
        _ => (authority, DEFAULT_PORT),
    };
    let ip = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(inner) => IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?),
            None => IpAddr::V4(host.parse().ok()?),
        },
    };
    Some(SocketAddr::new(ip, port))
}

/// Encodes everything but RFC 3986's unreserved characters and `/`.
fn percent_encode(bytes: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut nibble = || char::from(bytes.next()?).to_digit(16);
        out.push(u8::try_from(nibble()? * 16 + nibble()?).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_unix_uri_names_export_and_socket() {
        let (address, export) =
            Address::parse_uri("nbd+unix:///disk%200?socket=/run/a%2Bb.sock").unwrap();
        assert_eq!(address, Address::Unix("/run/a+b.sock".into()));
        assert_eq!(export, "disk 0");
    }

    #[test]
    fn a_tcp_uri_may_leave_out_the_port() {
        let (address, export) = Address::parse_uri("nbd://localhost/x").unwrap();
        assert_eq!(address, Address::Tcp("127.0.0.1:10809".parse().unwrap()));
        assert_eq!(export, "x");
        let (address, _) = Address::parse_uri("nbd://[::1]").unwrap();
        assert_eq!(address, Address::Tcp("[::1]:10809".parse().unwrap()));
    }

    #[test]
    fn what_leaves_the_machine_is_refused() {
        for uri in ["nbd://192.0.2.1/x", "nbds://127.0.0.1/x", "nbd+vsock://2/x"] {
            assert_eq!(
                Address::parse_uri(uri).unwrap_err().kind(),
                ErrorKind::Unsupported,
                "{uri}"
            );
        }
    }

    #[test]
    fn what_is_no_uri_is_an_error() {
        for uri in [
            "",
            "nbd",
            "http://a/",
            "nbd+unix:///x",
            "nbd+unix:///x?socket=%zz",
            "nbd://a.example:b/",
            "nbd://",
        ] {
            assert_eq!(
                Address::parse_uri(uri).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{uri}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_uri_parses_back(path in "/[^\0]{1,40}", export in "\\PC{0,40}") {
            let address = Address::Unix(path.into());
            let uri = address.uri(&export);
            prop_assert_eq!(Address::parse_uri(&uri).unwrap(), (address, export));
        }
    }
}
