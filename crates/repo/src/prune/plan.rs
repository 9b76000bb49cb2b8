//! Which packs go, and what of them is copied first.

use crate::index::{Index, Location};
use crate::marks::Marks;

/// What lies in a pack.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Bytes of all blobs.
    pub(super) total: u64,
    /// Bytes of those that have their one home here.
    pub(super) live: u64,
}

/// Gives each needed chunk that lies in several packs one of them as its home, which is marked
/// instead of the place that stands for it; what each pack holds then, by the number of the pack.
///
/// A home is best where most is needed anyway, so that other packs become free.
pub(super) fn choose_homes(index: &Index, marks: &mut Marks) -> Vec<Usage> {
    let mut packs = vec![Usage::default(); index.packs().len()];
    for (id, first) in index.chunks() {
        let mut copies = 0;
        for place in index.in_memory(id) {
            packs[place.pack as usize].total += u64::from(place.stored);
            copies += 1;
        }
        if copies == 1 && marks.contains(first) {
            packs[first.pack as usize].live += u64::from(first.stored);
        }
    }
    for id in index.several() {
        let Some(first) = index.first(id).filter(|first| marks.contains(first)) else {
            continue;
        };
        let is_home = |place: &Location| {
            let pack = index.pack(place.pack);
            pack.is_some_and(crate::index::Pack::is_home)
        };
        let best = (index.in_memory(id).filter(is_home)).max_by_key(|place| {
            (
                packs[place.pack as usize].live,
                std::cmp::Reverse(place.pack),
            )
        });
        marks.remove(&first);
        // What has none lies in packs that are condemned: whoever sweeps them copies it.
        if let Some(best) = best {
            marks.insert(&best);
            packs[best.pack as usize].live += u64::from(best.stored);
        }
    }
    packs
}

/// A pack of which only a part is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partial {
    pub(super) pack: u32,
    pub(super) usage: Usage,
}

/// The packs of which a part is needed, those first from which the least is to be copied for what
/// becomes free.
pub(super) fn most_profitable(index: &Index, packs: &[Usage]) -> Vec<Partial> {
    let mut partial: Vec<_> = (0u32..)
        .zip(packs)
        .filter(|(_, usage)| usage.live > 0 && usage.live < usage.total)
        .filter(|(pack, _)| index.pack(*pack).is_some_and(crate::index::Pack::is_home))
        .map(|(pack, usage)| Partial {
            pack,
            usage: *usage,
        })
        .collect();
    // Live by total, compared without dividing.
    partial.sort_by(|a, b| {
        let share = |one: &Partial, other: &Partial| {
            u128::from(one.usage.live) * u128::from(other.usage.total)
        };
        share(a, b).cmp(&share(b, a)).then(a.pack.cmp(&b.pack))
    });
    partial
}
