//! Every bound of the format and of the code that reads and writes it, in bytes unless said
//! otherwise. A reader refuses what exceeds a limit before it allocates.

/// The largest chunk, before compression.
pub const CHUNK_MAX: usize = 4 << 20;
/// The smallest chunk size a repository may be made with.
pub const CHUNK_MIN: usize = 64 << 10;
/// The chunk size of a new repository.
pub const CHUNK_DEFAULT: usize = 256 << 10;
/// A pack is closed when its blobs reach this size.
pub const PACK_TARGET: usize = 16 << 20;
/// The largest pack a reader accepts.
pub const PACK_MAX: u64 = 64 << 20;
/// The most packs that a writer has in memory: two that are filled, and three that are being put,
/// whatever the number of threads.
pub const PACK_BUFFERS: usize = 5;
/// The most that is read at once of a pack of data, and a chunk more.
pub const CHUNK_RUN: usize = 4 << 20;
/// The most such reads that are under way for one request, if it is a large one.
pub const RUN_THREADS: usize = 4;
/// The largest file of a cache.
pub const CACHE_FILE_MAX: u64 = 8 << 20;
/// What of a pack of metadata is kept together in a cache.
pub const CACHE_BLOCK: usize = 256 << 10;
/// The most names that a cache remembers as listed; others are not looked for in it.
pub const CACHE_NAMES: usize = 1 << 20;
/// The most folders of a cache that are looked through for room.
pub const CACHE_FOLDERS: usize = 4096;
/// The most files of each.
pub const CACHE_FILES: usize = 65_536;
/// The most blobs in one pack.
pub const PACK_BLOBS_MAX: usize = 65_536;
/// The largest sealed file that is read whole: snapshots, index objects, key slots.
pub const SEALED_MAX: u64 = 64 << 20;
/// An index object is written when so many blobs wait for one, so that an interrupted backup's
/// work is found again by the next.
pub const INDEX_BLOBS: usize = 65_536;
/// Chunks that wait to be found together while it is told what archives need.
pub const NEEDS_WAITING: usize = 1 << 21;
/// Entries of one table of the index: its file must fit [`SEALED_MAX`].
pub const TABLE_ENTRIES: usize = 524_288;
/// Packs in one file of a generation of tables.
pub const TABLE_PACKS: usize = 1 << 20;
/// Blocks read at once of a table that is read as a whole.
pub const TABLE_RUN: usize = 64;
/// Decoded blocks that each open table keeps.
pub const TABLE_BLOCKS: usize = 16;
/// Blobs of index objects that are sorted in memory at once when tables are made, and those of the
/// object that makes them too many.
pub const MERGE_BLOBS: usize = 1 << 20;
/// Index objects that no table covers are merged once there are so many, …
pub const MERGE_LEAST_OBJECTS: usize = 512;
/// … or have so many bytes, which are about a million blobs.
pub const MERGE_LEAST_BYTES: u64 = 48 << 20;
/// Files of tables that were never finished are removed after so many seconds.
pub const UNFINISHED_AGE_SECONDS: i64 = 86_400;
/// The largest configuration of a guest or its firewall.
pub const GUEST_CONFIG_MAX: usize = 1 << 20;
/// The most disks in one snapshot.
pub const DISKS_MAX: usize = 256;
/// The largest disk: 8 EiB, what a signed file offset can say.
pub const DISK_SIZE_MAX: u64 = i64::MAX as u64;
/// The largest `config` file.
pub const CONFIG_MAX: u64 = 64 << 10;
/// The largest head.
pub const HEAD_MAX: u64 = 4 << 10;
/// The most heads of one guest on one storage; all but the newest are removed by each backup.
pub const HEADS_MAX: usize = 65_536;
/// The longest notes of an archive.
pub const NOTES_MAX: usize = 64 << 10;
/// The longest text that an archive keeps of what its caller or a verification found wrong.
pub const CALLER_ERROR_MAX: usize = 16 << 10;
/// The longest task log of an archive.
pub const TASK_LOG_MAX: usize = 16 << 20;
/// The largest object with attributes.
pub const ATTRIBUTE_MAX: u64 = 1 << 20;
/// The most objects with attributes of one archive; each change removes those that do not count.
pub const ATTRIBUTES_MAX: usize = 1024;
/// How often attributes are read again that were replaced meanwhile.
pub const ATTRIBUTE_TRIES: usize = 8;
/// The most packs that one generation condemns; the next one takes what is left.
pub const GENERATION_PACKS_MAX: usize = 1_048_576;
/// The most archives that one generation names; the next one takes what is left.
pub const GENERATION_ARCHIVES_MAX: usize = 65_536;
/// The most archives that a sweep's marker names.
pub const SURVIVORS_MAX: usize = 2_097_152;
/// The most files in the folder of pruning.
pub const PRUNE_FILES_MAX: usize = 4096;
/// How many seconds pass between a generation and its sweep, if nothing else is asked for.
pub const GRACE_SECONDS: u64 = 86_400;
/// The least that may be asked for.
pub const GRACE_SECONDS_MIN: u64 = 3600;
/// A writer that has been at work for longer, in seconds, proves its archive when it commits: half
/// of the least grace, so that lists may be old for a quarter of it.
pub const WRITER_SECONDS_MAX: u64 = 1800;
/// How many seconds a sweep waits for lists to show what was done: twice as many as file systems
/// over a network keep them.
pub const SETTLE_SECONDS: u64 = 120;
/// A sweep removes a file whose name may come again at most so many seconds after it looked whether it
/// was ended: much less than [`SETTLE_SECONDS`].
pub const LOOK_SECONDS_MAX: u64 = 30;
/// How often a sweep looks for the removal of one file that a storage does not come to do.
pub const REMOVAL_LOOKS: u32 = 20;
/// Files that are dated so many seconds later than the storage's time are named by a pruning.
pub const AHEAD_SECONDS: i64 = 3600;
/// A sweep that took longer, in seconds, deletes no archive any more; twice as long after its
/// marker was put nobody waits for it.
pub const SWEEP_SECONDS_MAX: u64 = 86_400;
/// The most files in the folder of features.
pub const FEATURES_MAX: usize = 4096;
/// The most key slots of a repository.
pub const KEY_SLOTS_MAX: usize = 64;
/// The longest label of a key slot.
pub const KEY_LABEL_MAX: usize = 128;
/// The most files in the folder of key slots, readable or not.
pub const KEY_FILES_MAX: usize = 65_536;
/// The most memory, in KiB, that a passphrase slot may ask argon2id to use.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1 << 20;
/// The most passes a passphrase slot may ask argon2id to make.
pub const ARGON2_PASSES_MAX: u32 = 16;
/// The most lanes a passphrase slot may ask argon2id to use.
pub const ARGON2_LANES_MAX: u32 = 16;
/// Decoded chunks that a disk reader keeps.
pub const CHUNK_CACHE: usize = 32;
/// Chunks of a disk whose delivery is planned at once.
pub const DELIVER_CHUNKS: usize = 65_536;
/// Bytes that are told at once when a disk is delivered, unless a chunk has more.
pub const DELIVER_BLOCK: usize = 2 << 20;
/// The alignment in memory of what is delivered: a page's.
pub const PAGE: usize = 4096;
/// Map nodes that a disk reader keeps.
pub const NODE_CACHE: usize = 4096;
/// Opened pack keys that a repository keeps.
pub const PACK_KEY_CACHE: usize = 4096;
/// The most threads of a verification, each of which holds a pack, and of a look at whether a
/// disk is whole.
pub const VERIFY_THREADS: usize = 4;
/// Identities of two repositories that a copy remembers to be of the same: 64 bytes each.
pub const COPY_KNOWN: usize = 1 << 20;
/// Directories and large files of one directory of a base that a copy knows by name.
pub const COPY_NAMES: usize = 65_536;
/// Bytes that a copy's thread has for calls: it goes as deep as directories do.
pub const COPY_STACK: usize = 256 << 20;
/// Lost parts of an archive that a repair tells.
pub const LOST_MAX: usize = 4096;
/// The largest file with a pack's name that a repair moves away.
pub const STRANGE_MAX: u64 = 256 << 20;
/// The most that is read at once of a pack of nodes.
pub const NODE_RUN: usize = 1 << 20;
/// So much that is not wanted between two nodes is read with them: less than another read costs.
pub const NODE_GAP: usize = 16 << 10;
/// The same between two chunks or nodes of a storage that is far.
pub const FAR_GAP: usize = 1 << 20;
/// The most that each thread reads at once of a pack of data that is far when a disk is delivered: all
/// of it, as a writer makes it.
pub const FAR_RUN: usize = 20 << 20;
/// The most threads to which a disk is delivered from a storage that is far.
pub const FAR_THREADS: usize = 8;
/// The most files below one folder of a repository, `packs` above all: 256 TiB of them.
pub const FILES_MAX: usize = 16_777_216;
/// The most names that a local storage tries for a temporary file before it gives up: those that
/// killed processes of the same number left behind stay.
pub const TEMPORARY_NAMES_MAX: u64 = 65_536;
/// How deep the folders of a repository lie that are looked through for temporary files.
pub const FOLDER_DEPTH_MAX: usize = 8;
/// A temporary file that nobody has written to for so long, in seconds, may be removed.
pub const TEMPORARY_AGE_SECONDS: u64 = 86_400;
/// Missing chunks of damaged archives, counted for each of these, by which a verification names the
/// packs that are not there.
pub const ABSENT_MAX: usize = 1 << 18;
/// Unreadable files that an opened repository remembers to tell of.
pub const PROBLEMS_MAX: usize = 64;
/// The largest node of a directory tree.
pub const TREE_NODE_MAX: usize = 2 << 20;
/// A writer cuts a tree's node before it is larger than this, unless one entry is.
pub const TREE_NODE_TARGET: usize = 128 << 10;
/// A writer does not cut a tree's node that is smaller than this.
pub const TREE_NODE_MIN: usize = 16 << 10;
/// A directory whose node is not larger lies in its entry.
pub const TREE_INLINE_MAX: usize = 4 << 10;
/// The most levels of nodes of one directory, or one file's extents.
pub const TREE_LEVELS_MAX: u8 = 8;
/// The most names in a path from a tree's root.
pub const TREE_DEPTH_MAX: usize = 8192;
/// The longest name of an entry.
pub const TREE_NAME_MAX: usize = 255;
/// The longest path that a hard link leads to.
pub const TREE_PATH_MAX: usize = 1 << 20;
/// The longest target of a symbolic link.
pub const SYMLINK_MAX: usize = 4095;
/// The longest name of an extended attribute.
pub const XATTR_NAME_MAX: usize = 255;
/// The longest value of an extended attribute.
pub const XATTR_VALUE_MAX: usize = 64 << 10;
/// The most extended attributes of one entry.
pub const XATTRS_MAX: usize = 4096;
/// The most bytes of names and values of one entry's extended attributes.
pub const XATTRS_TOTAL_MAX: usize = 1 << 20;
/// The most extents that lie in a file's entry.
pub const EXTENTS_INLINE: usize = 8;
/// The largest file: what a signed file offset can say.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
/// A file with more data than this has chunks of its own.
pub const BUNDLED_MAX: usize = 128 << 10;
/// A writer does not end a bundle that is smaller than this.
pub const BUNDLE_MIN: usize = 128 << 10;
/// A writer ends a bundle that is not smaller than this.
pub const BUNDLE_TARGET: usize = 1 << 20;
/// The smallest chunk that a writer cuts from a large file.
pub const CUT_MIN: usize = 256 << 10;
/// From this size on a writer cuts a large file's chunks more readily.
pub const CUT_NORMAL: usize = 1 << 20;
/// The most parts of files, with holes between, in one chunk; and so in one bundle's file.
pub const PIECES_MAX: usize = 1024;
/// The most entries that a tree's writer holds back until their bundle is stored.
pub const WAITING_ENTRIES: usize = 8192;
/// The most bytes of such entries.
pub const WAITING_BYTES: usize = 4 << 20;
/// The most bytes of names and extended attributes of a directory and of those around it, which a
/// tree's writer holds until they are left.
pub const TREE_OPEN_BYTES_MAX: usize = 64 << 20;
/// A tree's writer stores unfinished nodes of directories when all of them have more bytes.
pub const HELD_BYTES: usize = 32 << 20;
/// Those that have no more bytes than this stay, and do not count.
pub const HELD_EACH: usize = 2 << 10;
/// The most chunks that wait for a worker of a tree's writer.
pub const QUEUE_CHUNKS: usize = 64;
/// The most bytes of chunks that wait for one.
pub const QUEUE_BYTES: usize = 16 << 20;
/// The most threads that store a tree's chunks.
pub const TREE_WORKERS_MAX: usize = 64;
/// Decoded nodes of one kind that a tree's reader keeps.
pub const TREE_CACHE_NODES: usize = 64;
/// The most bytes of them, as they are stored.
pub const TREE_CACHE_NODE_BYTES: usize = 8 << 20;
/// Decoded chunks that a tree's reader keeps.
pub const TREE_CACHE_CHUNKS: usize = 32;
/// The most bytes of them.
pub const TREE_CACHE_CHUNK_BYTES: usize = 32 << 20;
