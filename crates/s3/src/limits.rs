//! Every bound of what an endpoint may cost.

use std::time::Duration;

/// The longest prefix of a repository in its bucket, in bytes.
pub const PREFIX_MAX: usize = 400;
/// The longest location, as text.
pub const LOCATION_MAX: usize = 2048;
/// The largest reply that is no object: an error, a page of a list.
pub const REPLY_MAX: usize = 16 << 20;
/// The most of an error's own words that a message repeats.
pub const WORDS_MAX: usize = 300;
/// The largest credentials file.
pub const CREDENTIALS_MAX: u64 = 64 << 10;
/// The largest file of certificates.
pub const CA_FILE_MAX: u64 = 4 << 20;
/// How long a request is tried again, unless a setting says otherwise.
pub const RETRY_DEADLINE: Duration = Duration::from_secs(600);
/// The longest that a setting may say.
pub const RETRY_DEADLINE_MAX: Duration = Duration::from_secs(86_400);
/// The pause before the second try; each further one is twice as long.
pub const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(20);
/// How often a request is tried whose credentials are refused as too old, or cannot be had.
pub const CREDENTIAL_TRIES: u32 = 5;
/// The pause before the second of these tries; each further one is twice as long.
pub const CREDENTIAL_PAUSE_FIRST: Duration = Duration::from_secs(3);
/// How long a request is tried again that looks like a mistyped name, while the bucket has not
/// answered yet.
pub const UNANSWERED_PATIENCE: Duration = Duration::from_secs(60);
/// How long a machine is asked for credentials that nobody says it has, while the bucket has not
/// answered yet.
pub const GUESS_PATIENCE: Duration = Duration::from_secs(4);
/// How often an object is read in whichever way until the reply is a wrong one for good.
pub const WRONG_REPLIES_MAX: u32 = 6;
/// How long a connection may take.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(15);
/// How long nothing may come.
pub const IDLE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a try may be silent in any case, also one that begins just before the deadline, or goes on
/// after it because something still moves.
pub const LATE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a machine or a container may take to hand out its credentials: it is next door.
pub const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(3);
/// The slowest upload or download that is waited for, in bytes a second.
pub const SLOWEST: u64 = 32 << 10;
/// The most of a body that is given to a connection at once, in bytes.
pub const PIECE: usize = 256 << 10;
/// How often somebody is asked whether the end is wanted.
pub const CANCEL_POLL: Duration = Duration::from_millis(200);
/// The most names of a list that are put into order here; a longer one must come in order.
pub const UNORDERED_MAX: usize = 100_000;
/// The most names of a list.
pub const LIST_MAX: u64 = 16_777_216;
/// The most pages of a list that hold nothing although there is more.
pub const EMPTY_PAGES_MAX: usize = 100;
/// The most names that are remembered as put by this process.
pub const PUT_NAMES_MAX: usize = 8192;
/// The most folders that are remembered as empty.
pub const EMPTY_FOLDERS_MAX: usize = 1024;
/// How often a list is fetched that was empty, and then was not.
pub const EMPTY_LISTS_MAX: usize = 4;
/// The threads of the runtime; the callers' own do most of the work.
pub const RUNTIME_THREADS: usize = 2;
/// For how many days objects can be locked: at least,
pub const LOCK_DAYS_MIN: u32 = 1;
/// and at most.
pub const LOCK_DAYS_MAX: u32 = 3650;
/// For how many seconds an object is locked to see whether locks hold.
pub const LOCK_TRIAL_SECONDS: i64 = 60;
/// How many locks are looked at and renewed, or versions removed, at the same time.
pub const LOCK_THREADS: usize = 16;
/// The longest continuation of a list, in bytes.
pub const TOKEN_MAX: usize = 8 << 10;
/// The most pages of a list, of versions too, and of what is to be locked.
pub const PAGES_MAX: usize = 100_000;
/// The most objects that are named as overwritten.
pub const OVERWRITTEN_MAX: usize = 100;
/// The most versions of one object.
pub const VERSIONS_MAX: usize = 10_000;
