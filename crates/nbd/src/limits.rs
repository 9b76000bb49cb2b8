//! Every bound of this crate in one place.
//!
//! A peer chooses lengths and counts; these names are what stops it. Nothing is allocated for a
//! length that was not compared with one of them first.

use std::time::Duration;

/// Longest string of the protocol: export names, contexts, error messages (proto.md, "Conventions").
pub const MAX_STRING_BYTES: usize = 4096;

/// Largest data of one option that the server reads; a larger one ends the connection.
pub const MAX_OPTION_BYTES: usize = 64 * 1024;

/// Options one client may send before it must enter transmission.
pub const MAX_OPTIONS: usize = 1024;

/// Information requests in one `NBD_OPT_GO` or `NBD_OPT_INFO`.
pub const MAX_INFO_REQUESTS: usize = 64;

/// Queries in one `NBD_OPT_SET_META_CONTEXT` or `NBD_OPT_LIST_META_CONTEXT`.
pub const MAX_CONTEXT_QUERIES: usize = 256;

/// Metadata contexts a client asks for, and contexts one export offers.
pub const MAX_CONTEXTS: usize = 64;

/// Largest data of one option reply that the client reads: a name, a description and their lengths.
pub const MAX_OPTION_REPLY_BYTES: usize = 3 * MAX_STRING_BYTES;

/// Replies to one option, apart from `NBD_OPT_LIST`.
pub const MAX_OPTION_REPLIES: usize = 256;

/// Exports that [`list_exports`](crate::list_exports) accepts.
pub const MAX_EXPORTS_LISTED: usize = 10_000;

/// Connections of one client.
pub const MAX_CONNECTIONS: usize = 16;

/// Requests the client has in flight on one connection.
pub const MAX_CLIENT_IN_FLIGHT: usize = 16;

/// How many times the client's time-out a server may take until some reply is complete, however it
/// dribbles: its every byte may come just in time.
pub const REPLY_TIMEOUTS: u32 = 4;

/// Bytes of one system call that sends: its time-out may start again for each piece the kernel cuts.
pub const SEND_STEP_BYTES: usize = 256 * 1024;

/// Largest read or write the client sends as one request.
pub const MAX_CLIENT_REQUEST_BYTES: u32 = 2 * 1024 * 1024;

/// Largest trim or zeroing the client sends as one request: small enough that a slow disk answers
/// within the time-out.
pub const MAX_CLIENT_EFFECT_BYTES: u64 = 256 * 1024 * 1024;

/// Largest range of one block-status request with 32-bit headers; a multiple of every minimum block.
pub const MAX_COMPACT_STATUS_BYTES: u64 = (1 << 32) - (1 << 16);

/// Separate pieces one read reply may consist of at any time. Pieces that touch count as one, so
/// this stops only a server that scatters single bytes.
pub const MAX_READ_PIECES: usize = 8192;

/// Descriptors in one block-status chunk (proto.md, `NBD_REPLY_TYPE_BLOCK_STATUS`).
pub const MAX_STATUS_DESCRIPTORS: usize = 1 << 20;

/// Error chunks in the reply to one request.
pub const MAX_ERRORS_PER_REPLY: usize = 1024;

/// Largest error chunk: its message and room for fields of error types yet unknown.
pub const MAX_ERROR_PAYLOAD_BYTES: usize = 2 * MAX_STRING_BYTES;

/// Payload bytes read and kept at a time while a chunk arrives; the buffer grows with what came.
pub const PAYLOAD_STEP_BYTES: usize = 64 * 1024;

/// Block-status calls of one walk that are always allowed.
pub const FREE_STATUS_CALLS: u64 = 1024;

/// Beyond the free calls, a walk must cover this much per call on average, or the server is
/// dribbling: proto.md asks for descriptors in multiples of 512 bytes.
pub const MIN_BYTES_PER_STATUS_CALL: u64 = 512;

/// Largest payload of the protocol's default, and what our server advertises.
pub const MAX_PAYLOAD_BYTES: u32 = 32 * 1024 * 1024;

/// Largest minimum block size a server may ask for (proto.md, "Size constraints").
pub const MAX_MINIMUM_BLOCK_BYTES: u32 = 64 * 1024;

/// What proto.md lets a client assume where the server names no sizes.
pub const DEFAULT_PREFERRED_BLOCK_BYTES: u32 = 4096;

/// Smallest preferred block size a server may name (proto.md, "Size constraints").
pub const MIN_PREFERRED_BLOCK_BYTES: u32 = 512;

/// Requests of one connection the server works on at once, at least.
pub const MIN_SERVER_IN_FLIGHT: usize = 16;

/// Requests of one connection the server works on at once, at most.
pub const MAX_SERVER_IN_FLIGHT: usize = 64;

/// Data of requests that the server holds for one connection at once: enough for two of the
/// largest, or for 32 of those that `qemu-img` sends. Beyond it, requests wait in the socket.
pub const MAX_CONNECTION_BYTES: u64 = 64 * 1024 * 1024;

/// What one block-status request counts as of that: the extents of the longest range are some MiB,
/// several times over.
pub const STATUS_WORK_BYTES: u64 = 16 * 1024 * 1024;

/// Connections one server accepts at once, at most.
pub const MAX_SERVER_CONNECTIONS: usize = 256;

/// Buffer that a server thread keeps between requests, as large as what `qemu-img` asks for; a
/// larger one is given back.
pub const KEPT_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// Descriptors our server puts into one block-status chunk.
pub const MAX_STATUS_DESCRIPTORS_SENT: usize = 1 << 16;

/// First range our server asks an export's extents for when a client wants one extent only.
pub const FIRST_STATUS_WINDOW_BYTES: u64 = 64 * 1024 * 1024;

/// Socket buffers asked for; the kernel may give less.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Connections that wait to be accepted.
pub const LISTEN_BACKLOG: i32 = 64;

/// Longest time-out that options may ask for: a day, which a clock can surely count to.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a client of our server may take for its handshake, unless the options say otherwise.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a server that stops waits for the requests in flight, unless the options say otherwise.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long the client tries to open each connection beyond its first. A server that has no more
/// to give often does not say so but just leaves clients waiting.
pub const EXTRA_CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest range that one block-status answer of our server covers.
pub const MAX_STATUS_WINDOW_BYTES: u64 = 64 * 1024 * 1024 * 1024;
