//! The constants of the protocol (proto.md, "Values"; extended headers from its
//! `extension-ext-header` branch).

/// First eight bytes of every handshake, "NBDMAGIC".
pub(crate) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Marks a newstyle handshake and every option, "IHAVEOPT".
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Marks an oldstyle handshake.
pub(crate) const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Marks every reply to an option.
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(crate) const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
pub(crate) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(crate) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
pub(crate) const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Zeroes after the answer to `EXPORT_NAME` unless the client declined them.
pub(crate) const EXPORT_NAME_PADDING: usize = 124;

// Handshake flags of the server and, with the same bits, of the client.
pub(crate) const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
pub(crate) const FLAG_NO_ZEROES: u16 = 1 << 1;

/// Transmission flags: what an export can do.
pub(crate) mod transmit {
    pub(crate) const HAS_FLAGS: u16 = 1 << 0;
    pub(crate) const READ_ONLY: u16 = 1 << 1;
    pub(crate) const SEND_FLUSH: u16 = 1 << 2;
    pub(crate) const SEND_FUA: u16 = 1 << 3;
    pub(crate) const SEND_TRIM: u16 = 1 << 5;
    pub(crate) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(crate) const SEND_DF: u16 = 1 << 7;
    pub(crate) const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// Options of the handshake.
pub(crate) mod option {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const STARTTLS: u32 = 5;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
    pub(crate) const LIST_META_CONTEXT: u32 = 9;
    pub(crate) const SET_META_CONTEXT: u32 = 10;
    pub(crate) const EXTENDED_HEADERS: u32 = 11;
}

/// Replies to options.
pub(crate) mod reply {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const META_CONTEXT: u32 = 4;
    /// Set in every error.
    pub(crate) const ERROR_BIT: u32 = 1 << 31;
    pub(crate) const ERR_UNSUP: u32 = ERROR_BIT + 1;
    pub(crate) const ERR_POLICY: u32 = ERROR_BIT + 2;
    pub(crate) const ERR_INVALID: u32 = ERROR_BIT + 3;
    pub(crate) const ERR_PLATFORM: u32 = ERROR_BIT + 4;
    pub(crate) const ERR_TLS_REQD: u32 = ERROR_BIT + 5;
    pub(crate) const ERR_UNKNOWN: u32 = ERROR_BIT + 6;
    pub(crate) const ERR_SHUTDOWN: u32 = ERROR_BIT + 7;
    pub(crate) const ERR_BLOCK_SIZE_REQD: u32 = ERROR_BIT + 8;
    pub(crate) const ERR_TOO_BIG: u32 = ERROR_BIT + 9;
    pub(crate) const ERR_EXT_HEADER_REQD: u32 = ERROR_BIT + 10;
}

/// Kinds of information in an `INFO` reply.
pub(crate) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

/// Commands of the transmission phase.
pub(crate) mod command {
    pub(crate) const READ: u16 = 0;
    pub(crate) const WRITE: u16 = 1;
    pub(crate) const DISC: u16 = 2;
    pub(crate) const FLUSH: u16 = 3;
    pub(crate) const TRIM: u16 = 4;
    pub(crate) const WRITE_ZEROES: u16 = 6;
    pub(crate) const BLOCK_STATUS: u16 = 7;
}

/// Flags of a command.
pub(crate) mod command_flag {
    pub(crate) const FUA: u16 = 1 << 0;
    pub(crate) const NO_HOLE: u16 = 1 << 1;
    pub(crate) const DF: u16 = 1 << 2;
    pub(crate) const REQ_ONE: u16 = 1 << 3;
    pub(crate) const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Types of reply chunks.
pub(crate) mod chunk {
    pub(crate) const NONE: u16 = 0;
    pub(crate) const OFFSET_DATA: u16 = 1;
    pub(crate) const OFFSET_HOLE: u16 = 2;
    pub(crate) const BLOCK_STATUS: u16 = 5;
    pub(crate) const BLOCK_STATUS_EXT: u16 = 6;
    /// Set in every error chunk.
    pub(crate) const ERROR_BIT: u16 = 1 << 15;
    pub(crate) const ERROR: u16 = ERROR_BIT + 1;
    pub(crate) const ERROR_OFFSET: u16 = ERROR_BIT + 2;
}

/// Chunk flag: the last chunk of a reply.
pub(crate) const CHUNK_DONE: u16 = 1 << 0;

/// The name of an option, for messages.
pub(crate) fn option_name(number: u32) -> String {
    match number {
        option::EXPORT_NAME => "NBD_OPT_EXPORT_NAME".to_owned(),
        option::ABORT => "NBD_OPT_ABORT".to_owned(),
        option::LIST => "NBD_OPT_LIST".to_owned(),
        option::STARTTLS => "NBD_OPT_STARTTLS".to_owned(),
        option::INFO => "NBD_OPT_INFO".to_owned(),
        option::GO => "NBD_OPT_GO".to_owned(),
        option::STRUCTURED_REPLY => "NBD_OPT_STRUCTURED_REPLY".to_owned(),
        option::LIST_META_CONTEXT => "NBD_OPT_LIST_META_CONTEXT".to_owned(),
        option::SET_META_CONTEXT => "NBD_OPT_SET_META_CONTEXT".to_owned(),
        option::EXTENDED_HEADERS => "NBD_OPT_EXTENDED_HEADERS".to_owned(),
        other => format!("option {other}"),
    }
}

/// The name of an error reply to an option, for messages.
pub(crate) fn reply_error_name(number: u32) -> String {
    match number {
        reply::ERR_UNSUP => "NBD_REP_ERR_UNSUP".to_owned(),
        reply::ERR_POLICY => "NBD_REP_ERR_POLICY".to_owned(),
        reply::ERR_INVALID => "NBD_REP_ERR_INVALID".to_owned(),
        reply::ERR_PLATFORM => "NBD_REP_ERR_PLATFORM".to_owned(),
        reply::ERR_TLS_REQD => "NBD_REP_ERR_TLS_REQD".to_owned(),
        reply::ERR_UNKNOWN => "NBD_REP_ERR_UNKNOWN".to_owned(),
        reply::ERR_SHUTDOWN => "NBD_REP_ERR_SHUTDOWN".to_owned(),
        reply::ERR_BLOCK_SIZE_REQD => "NBD_REP_ERR_BLOCK_SIZE_REQD".to_owned(),
        reply::ERR_TOO_BIG => "NBD_REP_ERR_TOO_BIG".to_owned(),
        reply::ERR_EXT_HEADER_REQD => "NBD_REP_ERR_EXT_HEADER_REQD".to_owned(),
        other => format!("error {:#x}", other & !reply::ERROR_BIT),
    }
}
