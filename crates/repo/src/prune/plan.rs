//! Which packs go, and what of them is copied first.

use std::cmp::Reverse;

use crate::Result;
use crate::index::{Index, Location, Pack, stands};
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
/// A home is best where little is left that nothing needs: a pruning that was cut off has copied
/// from packs of which much goes, and the next one is to rely on its copies, or it would never come
/// to an end. Among those alike it is best where most is needed anyway, so that others become free.
pub(super) fn choose_homes(index: &Index, marks: &mut Marks) -> Result<Vec<Usage>> {
    let mut packs = vec![Usage::default(); index.packs().len()];
    let mut needed = vec![0u64; packs.len()];
    index.each(&mut |_, places| {
        let is_needed = stands(places).is_some_and(|first| marks.contains(&first));
        for place in places {
            packs[place.pack as usize].total += u64::from(place.stored);
            if is_needed {
                needed[place.pack as usize] += u64::from(place.stored);
            }
        }
        if let [only] = places
            && marks.contains(only)
        {
            packs[only.pack as usize].live += u64::from(only.stored);
        }
        Ok(())
    })?;
    // Not all too exactly: for a few bytes no pack is to be copied.
    let wasted: Vec<u64> = (packs.iter().zip(needed))
        .map(|(pack, needed)| (pack.total - needed) / (pack.total / 10).max(1))
        .collect();
    let is_home = |place: &&Location| index.pack(place.pack).is_some_and(Pack::is_home);
    index.each(&mut |_, places| {
        let first = stands(places).filter(|first| marks.contains(first));
        let (Some(first), [_, _, ..]) = (first, places) else {
            return Ok(());
        };
        let best = places.iter().filter(is_home).max_by_key(|place| {
            let pack = place.pack as usize;
            (Reverse(wasted[pack]), packs[pack].live, Reverse(pack))
        });
        marks.remove(&first);
        // What has none lies in packs that are condemned: whoever sweeps them copies it.
        if let Some(best) = best {
            marks.insert(best);
            packs[best.pack as usize].live += u64::from(best.stored);
        }
        Ok(())
    })?;
    Ok(packs)
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
        .filter(|(pack, _)| index.pack(*pack).is_some_and(Pack::is_home))
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
