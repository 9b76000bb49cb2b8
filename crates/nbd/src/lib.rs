//! NBD.
mod address;
mod client;
mod error;
mod extent;
mod handshake;
pub mod limits;
mod server;
mod stream;
mod transmission;
mod wire;

pub use address::Address;
pub use client::{Client, ClientOptions, Extents, list_exports};
pub use error::{Errno, Error, ErrorKind, Result};
pub use extent::{BASE_ALLOCATION, Extent};
pub use handshake::BlockSizes;
pub use server::{Export, ExportError, Log, Server, ServerOptions};
