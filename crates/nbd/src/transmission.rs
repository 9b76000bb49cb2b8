//! The transmission phase without IO (proto.md, "Transmission" and "Transmission phase").
//!
//! [`replies`] is the client's side: it knows every request in flight and says where the next bytes
//! of the socket belong. [`requests`] is the server's side: it judges requests and encodes replies.

mod coverage;
pub(crate) mod replies;
pub(crate) mod requests;
#[cfg(test)]
mod tests;
