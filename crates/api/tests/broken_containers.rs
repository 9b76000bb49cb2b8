//! Providers with one deliberate flaw each in how they back containers up: the kit names the
//! property that each one breaks.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use snapkeep_api::conformance::container_properties;
use snapkeep_api::memory::MemoryProvider;
use snapkeep_api::memory::tree::MemoryTree;
use snapkeep_api::tree::{
    Attributes, Content, Entry, EntryKind, Found, Judgement, KnownTree, Name, ProblemKind, Step,
    Timestamp, Told, TreeNode, TreeReader, TreeSource, TreeTotals, Witness,
};
use snapkeep_api::{
    Archive, ArchiveName, BackupJob, BackupStats, ContainerBackup, ContainerRestore,
    ContainerSource, Error, ErrorKind, GuestId, GuestKind, Outcome, Provider, Region, Result,
    UnixTime, VmBackup, VmMechanism, VmRestore,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flaw {
    // What it believes.
    ForgetsTheCtime,
    ForgetsTheInode,
    BelievesSizeAndTime,
    BelievesWhatChanged,
    BelievesTheYoung,
    BelievesItsAudit,
    BelievesAnybody,
    InventsFiles,
    // What it keeps.
    CommitsWhatFailed,
    WithdrawsAfterFailure,
    SwallowsLostContent,
    CountsNothing,
    CountsTheVanished,
    DropsHardLinks,
    DropsXattrs,
    CutsTimes,
    MakesNamesText,
    FillsEmptyFirewallConfig,
    CountsHoles,
    // What it restores.
    TellsNoData,
    ListsTheFirstPage,
    ReadsPastTheEnd,
    FindsAnything,
}

#[derive(Clone)]
struct Broken {
    inner: MemoryProvider,
    flaw: Flaw,
    withdrawn: Arc<Mutex<BTreeSet<ArchiveName>>>,
}

impl Provider for Broken {
    fn name(&self) -> &str {
        Provider::name(&self.inner)
    }

    fn start_job(&self, _start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        Ok(Box::new(self.clone()))
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        if self.withdrawn.lock().expect("a lock").contains(name) {
            return Err(Error::new(ErrorKind::NotFound, "withdrawn"));
        }
        let inner = self.inner.open_archive(name)?;
        let flaw = self.flaw;
        Ok(Box::new(Opened { inner, flaw }))
    }
}

impl BackupJob for Broken {
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>> {
        self.inner.start_vm(guest, start_time)
    }

    fn start_container(
        &mut self,
        guest: &GuestId,
        mut start_time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        let mut guest = guest.clone();
        if self.flaw == Flaw::BelievesTheYoung {
            start_time.0 = i64::MAX;
        } else if self.flaw == Flaw::BelievesAnybody {
            guest = "1".parse()?;
        }
        Ok(Box::new(BrokenBackup {
            inner: self.inner.start_container(&guest, start_time)?,
            provider: self.clone(),
        }))
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

struct BrokenBackup {
    inner: Box<dyn ContainerBackup>,
    provider: Broken,
}

impl ContainerBackup for BrokenBackup {
    fn archive_name(&self) -> &ArchiveName {
        self.inner.archive_name()
    }

    fn run(&mut self, container: ContainerSource<'_>) -> Result<BackupStats> {
        let flaw = self.provider.flaw;
        let mut tree = BrokenSource {
            inner: container.tree,
            flaw,
            holes: 0,
        };
        let firewall = container.firewall_config;
        let filled = firewall.filter(|config| !config.is_empty() || flaw != FILLS);
        let ran = self.inner.run(ContainerSource {
            tree: &mut tree,
            firewall_config: filled.or(firewall.map(|_| &b"\n"[..])),
            ..container
        });
        let holes = tree.holes;
        if ran.is_err() && flaw == Flaw::CommitsWhatFailed {
            self.inner.run(ContainerSource {
                guest_config: b"",
                firewall_config: None,
                bandwidth_limit: None,
                id_map: None,
                tree: &mut MemoryTree::new().source(),
            })?;
        }
        let mut stats = ran?;
        if flaw == Flaw::CountsNothing {
            stats.left_out = 0;
        }
        stats.read += holes;
        Ok(stats)
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        let provider = &self.provider;
        if provider.flaw == Flaw::WithdrawsAfterFailure && *outcome != Outcome::Success {
            let name = self.inner.archive_name().clone();
            provider.withdrawn.lock().expect("a lock").insert(name);
        }
        self.inner.finish(outcome)
    }
}

const FILLS: Flaw = Flaw::FillsEmptyFirewallConfig;

const ANY: Witness = Witness {
    inode: 1,
    ctime: Timestamp {
        seconds: 0,
        nanos: 0,
    },
};

/// A walk as the flaw sees it.
struct BrokenSource<'a> {
    inner: &'a mut dyn TreeSource,
    flaw: Flaw,
    holes: u64,
}

impl BrokenSource<'_> {
    fn tell(&self, told: &mut Told) {
        told.witness = self.flaw.witness(told.witness);
        if self.flaw == Flaw::BelievesItsAudit && told.judged == Judgement::Audit {
            told.entry = None;
        }
        if self.flaw == Flaw::InventsFiles && told.entry.is_none() {
            told.entry = Some(Entry {
                attributes: Attributes::default(),
                kind: EntryKind::Fifo,
            });
        }
        if let (Flaw::MakesNamesText, Some(name)) = (self.flaw, &mut told.name) {
            let text = String::from_utf8_lossy(name.as_bytes()).into_owned();
            *name = Name::new(text.into_bytes()).expect("a name");
        }
        if let Some(entry) = &mut told.entry {
            match (self.flaw, &entry.kind) {
                (Flaw::DropsXattrs, _) => entry.attributes.xattrs.clear(),
                (Flaw::CutsTimes, _) => entry.attributes.mtime.nanos = 0,
                (Flaw::DropsHardLinks, EntryKind::HardLink { .. }) => entry.kind = EntryKind::Fifo,
                _ => {}
            }
        }
    }
}

impl TreeSource for BrokenSource<'_> {
    fn next(&mut self, known: &mut dyn KnownTree) -> Result<Option<Step>> {
        let flaw = self.flaw;
        let mut known = BrokenKnown { known, flaw };
        let mut step = self.inner.next(&mut known)?;
        match &mut step {
            Some(Step::Enter(told) | Step::Entry(told)) => self.tell(told),
            Some(Step::Problem(problem))
                if flaw == Flaw::CountsTheVanished && problem.kind == ProblemKind::Vanished =>
            {
                problem.kind = ProblemKind::LeftOut;
            }
            Some(Step::Problem(_) | Step::Leave) | None => {}
        }
        Ok(step)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Content> {
        let read = self.inner.read(buffer)?;
        Ok(match (self.flaw, read) {
            (Flaw::BelievesWhatChanged, Content::End { .. })
            | (Flaw::SwallowsLostContent, Content::Lost(_)) => Content::End { changed: None },
            (Flaw::CountsHoles, Content::Hole(length)) => {
                self.holes += length;
                Content::Hole(length)
            }
            (_, other) => other,
        })
    }
}

struct BrokenKnown<'a> {
    known: &'a mut dyn KnownTree,
    flaw: Flaw,
}

impl KnownTree for BrokenKnown<'_> {
    fn judge(&mut self, name: &Name, found: &Found) -> Result<Judgement> {
        let witness = self.flaw.witness(Some(found.witness));
        let witness = witness.unwrap_or(found.witness);
        self.known.judge(name, &Found { witness, ..*found })
    }
}

impl Flaw {
    /// What it takes a witness for.
    fn witness(self, witness: Option<Witness>) -> Option<Witness> {
        if self == Self::BelievesSizeAndTime {
            return Some(ANY);
        }
        let mut seen = witness?;
        if self == Self::ForgetsTheCtime {
            seen.ctime = ANY.ctime;
        } else if self == Self::ForgetsTheInode {
            seen.inode = ANY.inode;
        }
        Some(seen)
    }
}

struct Opened {
    inner: Box<dyn Archive>,
    flaw: Flaw,
}

impl Archive for Opened {
    fn guest_kind(&self) -> GuestKind {
        self.inner.guest_kind()
    }

    fn guest_config(&self) -> Result<Vec<u8>> {
        self.inner.guest_config()
    }

    fn firewall_config(&self) -> Result<Option<Vec<u8>>> {
        self.inner.firewall_config()
    }

    fn restore_vm(self: Box<Self>) -> Result<Box<dyn VmRestore>> {
        self.inner.restore_vm()
    }

    fn restore_container(self: Box<Self>) -> Result<Box<dyn ContainerRestore>> {
        let inner = self.inner.restore_container()?;
        let flaw = self.flaw;
        Ok(Box::new(BrokenRestore { inner, flaw }))
    }
}

struct BrokenRestore {
    inner: Box<dyn ContainerRestore>,
    flaw: Flaw,
}

impl ContainerRestore for BrokenRestore {
    fn open_tree(&mut self) -> Result<Box<dyn TreeReader>> {
        let inner = self.inner.open_tree()?;
        let flaw = self.flaw;
        Ok(Box::new(BrokenReader { inner, flaw }))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.inner.finish()
    }
}

struct BrokenReader {
    inner: Box<dyn TreeReader>,
    flaw: Flaw,
}

impl TreeReader for BrokenReader {
    fn root(&self) -> Result<TreeNode> {
        self.inner.root()
    }

    fn totals(&self) -> TreeTotals {
        self.inner.totals()
    }

    fn list(
        &self,
        directory: &TreeNode,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, TreeNode)>> {
        let after = after.filter(|_| self.flaw != Flaw::ListsTheFirstPage);
        self.inner.list(directory, after, max)
    }

    fn lookup(&self, directory: &TreeNode, name: &Name) -> Result<Option<TreeNode>> {
        let found = self.inner.lookup(directory, name)?;
        if found.is_some() || self.flaw != Flaw::FindsAnything {
            return Ok(found);
        }
        Ok(self.inner.list(directory, None, 1)?.pop().map(|(_, n)| n))
    }

    fn read_at(&self, file: &TreeNode, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.inner.read_at(file, offset, buffer);
        if self.flaw == Flaw::ReadsPastTheEnd {
            return Ok(());
        }
        read
    }

    fn next_data(&self, file: &TreeNode, offset: u64) -> Result<Option<Region>> {
        if self.flaw == Flaw::TellsNoData {
            return Ok(None);
        }
        self.inner.next_data(file, offset)
    }
}

/// The kit finds the flaw by these properties, if by others too.
fn expect_caught(flaw: Flaw, names: &[&str]) {
    let properties = container_properties();
    for name in names {
        let found = properties.iter().find(|(known, _)| known == name);
        let (_, property) = found.expect("a property of the kit");
        let check = property(&|| {
            let inner = MemoryProvider::new(VmMechanism::Nbd);
            Box::new(Broken {
                inner: if flaw == Flaw::BelievesItsAudit {
                    inner.auditing(2)
                } else {
                    inner
                },
                flaw,
                withdrawn: Arc::default(),
            })
        });
        assert!(check.is_err(), "{name} holds in spite of {flaw:?}");
    }
}

#[test]
fn believing_less_than_the_whole_witness_is_caught() {
    let property = "only_what_looks_unchanged_is_known";
    expect_caught(Flaw::ForgetsTheCtime, &[property]);
    expect_caught(Flaw::ForgetsTheInode, &[property]);
    expect_caught(
        Flaw::BelievesSizeAndTime,
        &[property, "what_has_no_witness_is_not_known"],
    );
}

#[test]
fn believing_what_changed_while_it_was_read_is_caught() {
    expect_caught(
        Flaw::BelievesWhatChanged,
        &["what_changed_while_it_was_read_is_not_known"],
    );
}

#[test]
fn believing_what_may_be_younger_than_its_backup_is_caught() {
    expect_caught(
        Flaw::BelievesTheYoung,
        &["what_may_be_younger_than_the_backup_is_not_known"],
    );
}

#[test]
fn an_audit_that_does_not_read_is_caught() {
    expect_caught(Flaw::BelievesItsAudit, &["what_is_audited_is_read_again"]);
}

#[test]
fn believing_one_guest_about_another_is_caught() {
    expect_caught(Flaw::BelievesAnybody, &["another_guests_tree_is_not_known"]);
}

#[test]
fn taking_a_walks_word_for_what_is_known_is_caught() {
    expect_caught(
        Flaw::InventsFiles,
        &["what_was_never_known_cannot_be_told_as_known"],
    );
}

#[test]
fn committing_what_failed_is_caught() {
    expect_caught(
        Flaw::CommitsWhatFailed,
        &[
            "a_failed_walk_leaves_no_archive",
            "a_failed_walk_harms_no_earlier_archive",
        ],
    );
}

#[test]
fn withdrawing_a_committed_archive_is_caught() {
    expect_caught(
        Flaw::WithdrawsAfterFailure,
        &["a_containers_archive_outlives_a_failed_finish"],
    );
}

#[test]
fn not_telling_what_is_left_out_is_caught() {
    let property = "what_cannot_be_read_is_counted_and_the_rest_is_there";
    expect_caught(Flaw::SwallowsLostContent, &[property]);
    expect_caught(Flaw::CountsNothing, &[property]);
    expect_caught(Flaw::CountsTheVanished, &[property]);
}

#[test]
fn keeping_less_of_an_entry_is_caught() {
    expect_caught(Flaw::DropsHardLinks, &["hard_links_restore"]);
    expect_caught(
        Flaw::DropsXattrs,
        &[
            "attributes_restore_exactly",
            "every_kind_of_entry_restores_exactly",
        ],
    );
    expect_caught(Flaw::CutsTimes, &["attributes_restore_exactly"]);
    expect_caught(Flaw::MakesNamesText, &["odd_names_restore"]);
}

#[test]
fn an_empty_firewall_configuration_that_is_not_none_is_caught() {
    expect_caught(
        FILLS,
        &["a_containers_empty_firewall_configuration_is_none"],
    );
}

#[test]
fn counting_holes_as_read_is_caught() {
    expect_caught(Flaw::CountsHoles, &["holes_read_as_zeroes"]);
}

#[test]
fn data_that_is_told_to_be_a_hole_is_caught() {
    expect_caught(
        Flaw::TellsNoData,
        &["contents_of_any_length_restore", "holes_read_as_zeroes"],
    );
}

#[test]
fn a_reader_that_is_not_exact_is_caught() {
    expect_caught(
        Flaw::ListsTheFirstPage,
        &["folders_are_listed_in_pages", "odd_names_restore"],
    );
    expect_caught(Flaw::FindsAnything, &["an_absent_name_is_not_there"]);
    expect_caught(
        Flaw::ReadsPastTheEnd,
        &["reading_past_the_end_of_a_file_fails"],
    );
}
