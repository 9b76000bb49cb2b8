//! NBD, the network block device protocol: a client that reads disks of a running QEMU, and a server
//! that shows archives to whatever speaks NBD. Only between processes of one machine: over Unix
//! sockets and TCP on loopback, in the clear.
//!
//! What of the [protocol](https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md) is
//! spoken, by its sections:
//!
//! | section | client | server |
//! | --- | --- | --- |
//! | handshake | fixed newstyle; oldstyle and plain newstyle are refused by name | fixed newstyle |
//! | `NBD_OPT_GO`, `NBD_OPT_INFO` | `GO`, required | both |
//! | `NBD_OPT_EXPORT_NAME` | never | for old clients |
//! | `NBD_OPT_LIST`, `NBD_OPT_ABORT` | [`list_exports`] | yes |
//! | `NBD_OPT_STARTTLS` | a server that requires it is refused | refused |
//! | structured replies | yes; without them no block status | yes |
//! | extended headers ([branch](https://github.com/NetworkBlockDevice/nbd/blob/extension-ext-header/doc/proto.md)) | preferred | yes |
//! | metadata contexts | those asked for by [`ClientOptions::contexts`] | those of [`Export::contexts`] |
//! | size constraints | obeyed | minimum 1, preferred 4 KiB, maximum 32 MiB |
//! | several connections | if the server allows them | yes |
//! | read, write, flush, trim, write zeroes, block status | yes | yes |
//! | FUA, `DF`, `NO_HOLE`, `REQ_ONE` | not needed | yes |
//! | `NBD_CMD_CACHE`, fast zeroes, block-status payload, resize | no | no |
//!
//! # Shape
//!
//! The protocol does no IO and the IO knows no protocol: `wire` turns messages into bytes and back,
//! `handshake` and `transmission` are state machines on top of it, and only `stream`, `client` and
//! `server` touch sockets. What a peer sends is bounded in [`limits`] and checked before anything is
//! allocated for it. A peer that breaks the protocol costs its connection, never more.
//!
//! ```no_run
//! use snapkeep_nbd::{Address, BASE_ALLOCATION, Client, ClientOptions};
//!
//! # fn main() -> snapkeep_nbd::Result<()> {
//! let (address, export) = Address::parse_uri("nbd+unix:///disk0?socket=/run/disks.sock")?;
//! let contexts = vec![BASE_ALLOCATION.to_owned()];
//! let client = Client::connect(&address, &ClientOptions { export, contexts, ..ClientOptions::default() })?;
//! for extent in client.extents(BASE_ALLOCATION, 0, client.size()) {
//!     let extent = extent?;
//!     if !extent.is_zero() {
//!         let mut first = [0; 1];
//!         client.read_at(extent.offset, &mut first)?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod client;
mod error;
mod extent;
pub mod fuzz;
mod handshake;
pub mod limits;
mod server;
mod shake;
mod stream;
mod transmission;
mod wire;

pub use address::Address;
pub use client::{Client, ClientOptions, Extents, list_exports};
pub use error::{Errno, Error, ErrorKind, Result};
pub use extent::{BASE_ALLOCATION, Extent};
pub use handshake::BlockSizes;
pub use server::{Export, ExportError, Log, Server, ServerOptions};
