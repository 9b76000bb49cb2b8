//! What lies in the repository, as the storage has it: files, when they were put and removed, and
//! what their contents say. Sets are bit masks; every file that can ever be has its place.

/// Sets of chunks, packs, snapshots and generations (a marker has its generation's number).
pub(crate) type Chunks = u8;
pub(crate) type Packs = u16;
pub(crate) type Snapshots = u8;
pub(crate) type Generations = u8;

pub(crate) const PACKS: usize = 13;
pub(crate) const SNAPSHOTS: usize = 4;
pub(crate) const GENERATIONS: usize = 4;
/// Packs that are there from the start.
pub(crate) const FIRST_PACKS: usize = 3;
/// The archive that is forgotten and taken back.
pub(crate) const FORGOTTEN: usize = 0;
/// The snapshots of writers follow the two that are there from the start; so do their packs.
pub(crate) const FIRST_WRITTEN: usize = 2;

/// Epochs that a generation waits for its marker, and a marker for the second listing.
pub(crate) const WAIT: u8 = 3;
/// The oldest state that a listing shows: as of the beginning of the epoch before this one.
pub(crate) const STALEST: u8 = 2;

pub(crate) fn members(set: u16) -> impl Iterator<Item = usize> {
    (0..16).filter(move |i| set >> i & 1 == 1)
}

pub(crate) fn has(set: impl Into<u16>, member: usize) -> bool {
    set.into() >> member & 1 == 1
}

/// A file: when it was put and removed, in epochs before now. Zero: it never was, or is forgotten.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct File {
    put: u8,
    removed: u8,
}

impl File {
    pub(crate) const OLD: Self = Self {
        put: WAIT + 1,
        removed: 0,
    };

    pub(crate) fn put(&mut self) {
        if !self.exists() {
            *self = Self { put: 1, removed: 0 };
        }
    }

    pub(crate) fn remove(&mut self) {
        if self.exists() {
            self.removed = 1;
        }
    }

    pub(crate) fn exists(self) -> bool {
        self.shown(0)
    }

    /// Whether a listing shows it that tells the state of so many epochs ago.
    pub(crate) fn shown(self, ago: u8) -> bool {
        self.put > ago && (self.removed == 0 || self.removed <= ago)
    }

    pub(crate) fn age(self) -> u8 {
        self.put.saturating_sub(1)
    }

    fn tick(&mut self) {
        if self.put > 0 {
            self.put = (self.put + 1).min(WAIT + 1);
        }
        if self.removed > 0 {
            self.removed += 1;
        }
    }

    /// What no listing shows any more is as good as never there.
    fn settle(&mut self, timed: bool) {
        if self.removed > if timed { STALEST } else { 0 } {
            *self = Self::default();
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Pack {
    pub(crate) file: File,
    pub(crate) chunks: Chunks,
    /// The index object that names it.
    pub(crate) index: File,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) file: File,
    pub(crate) needs: Chunks,
    /// The generations that its writer had read.
    pub(crate) seen: Generations,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Generation {
    pub(crate) file: File,
    pub(crate) number: u8,
    pub(crate) condemned: Packs,
    /// Forgotten snapshots, and late ones that are not whole.
    pub(crate) names: Snapshots,
    pub(crate) marker: File,
    pub(crate) survivors: Snapshots,
}

/// A state of the storage.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct World {
    pub(crate) packs: [Pack; PACKS],
    pub(crate) snapshots: [Snapshot; SNAPSHOTS],
    pub(crate) generations: [Generation; GENERATIONS],
    /// Attributes of one archive: that it is forgotten, and that this is taken back.
    pub(crate) forgotten: File,
    pub(crate) taken_back: File,
}

/// Which state a listing tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum View {
    /// That of so many epochs ago.
    Ago(u8),
    /// Nothing is there, by error.
    Empty,
}

impl View {
    pub(crate) const NOW: Self = Self::Ago(0);

    fn shows(self, file: File) -> bool {
        match self {
            Self::Ago(ago) => file.shown(ago),
            Self::Empty => false,
        }
    }
}

fn set<T: Into<u16> + TryFrom<u16> + Default>(members: impl Iterator<Item = bool>) -> T {
    let mut set = 0;
    for (i, member) in members.enumerate() {
        set |= u16::from(member) << i;
    }
    T::try_from(set).unwrap_or_default()
}

impl World {
    pub(crate) fn list_packs(&self, view: View) -> Packs {
        set(self.packs.iter().map(|pack| view.shows(pack.file)))
    }

    /// Only those that can also be read now.
    pub(crate) fn list_snapshots(&self, view: View) -> Snapshots {
        let there = |s: &Snapshot| view.shows(s.file) && s.file.exists();
        set(self.snapshots.iter().map(there))
    }

    /// Generations and markers. Of the generations only those that can also be read now.
    pub(crate) fn list_prune(&self, view: View) -> (Generations, Generations) {
        let there = |g: &Generation| view.shows(g.file) && g.file.exists();
        (
            set(self.generations.iter().map(there)),
            set(self.generations.iter().map(|g| view.shows(g.marker))),
        )
    }

    /// Whether the attributes that are listed say that the archive is forgotten.
    pub(crate) fn list_forgotten(&self, view: View) -> bool {
        view.shows(self.forgotten) && !view.shows(self.taken_back)
    }

    pub(crate) fn chunks(&self, packs: Packs) -> Chunks {
        members(packs).fold(0, |all, i| all | self.packs[i].chunks)
    }

    pub(crate) fn needs(&self, snapshots: Snapshots) -> Chunks {
        members(snapshots.into()).fold(0, |all, i| all | self.snapshots[i].needs)
    }

    pub(crate) fn condemned(&self, generations: Generations) -> Packs {
        members(generations.into()).fold(0, |all, i| all | self.generations[i].condemned)
    }

    pub(crate) fn named(&self, generations: Generations) -> Snapshots {
        members(generations.into()).fold(0, |all, i| all | self.generations[i].names)
    }

    /// Whether these packs have all that a snapshot needs.
    pub(crate) fn whole(&self, snapshot: usize, packs: Packs) -> bool {
        self.snapshots[snapshot].needs & !self.chunks(packs) == 0
    }

    pub(crate) fn put_pack(&mut self, place: usize, chunks: Chunks) {
        self.packs[place].chunks = chunks;
        self.packs[place].file.put();
    }

    pub(crate) fn put_index(&mut self, place: usize) {
        self.packs[place].index.put();
    }

    fn files(&mut self) -> impl Iterator<Item = &mut File> {
        (self.packs.iter_mut())
            .flat_map(|p| [&mut p.file, &mut p.index])
            .chain(self.snapshots.iter_mut().map(|s| &mut s.file))
            .chain((self.generations.iter_mut()).flat_map(|g| [&mut g.file, &mut g.marker]))
            .chain([&mut self.forgotten, &mut self.taken_back])
    }

    /// An epoch passes: as long as a listing may be behind.
    pub(crate) fn tick(&mut self) {
        self.files().for_each(File::tick);
    }

    pub(crate) fn settle(&mut self, timed: bool) {
        self.files().for_each(|file| file.settle(timed));
    }
}
