//! What was measured, and its medians over the rounds.

use super::measure::{Cost, median};

const MIB: f64 = 1_048_576.0;

/// One measured run: which tool did what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample<T, C> {
    pub(crate) tool: T,
    pub(crate) case: C,
    pub(crate) cost: Cost,
    /// Bytes in the repository afterwards.
    pub(crate) stored: u64,
}

impl<T, C> Sample<T, C> {
    pub(crate) fn cpu(&self) -> f64 {
        self.cost.cpu_s
    }

    pub(crate) fn wall(&self) -> f64 {
        self.cost.wall_s
    }

    pub(crate) fn peak(&self) -> f64 {
        self.cost.peak_mib
    }

    pub(crate) fn stored_mib(&self) -> f64 {
        mib(self.stored)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a size to print")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

/// Medians over the rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Medians<'a, T, C>(pub(crate) &'a [Sample<T, C>]);

impl<T: Copy + PartialEq, C: Copy + PartialEq> Medians<'_, T, C> {
    pub(crate) fn of(&self, tool: T, case: C, value: fn(&Sample<T, C>) -> f64) -> Option<f64> {
        let of_it = |sample: &&Sample<T, C>| sample.tool == tool && sample.case == case;
        let mut found = self.0.iter().filter(of_it).map(value).peekable();
        found.peek()?;
        Some(median(found))
    }

    /// The least of these tools' medians, and whose it is.
    pub(crate) fn best(
        &self,
        tools: &[T],
        case: C,
        value: fn(&Sample<T, C>) -> f64,
    ) -> Option<(T, f64)> {
        let medians = (tools.iter()).filter_map(|tool| Some((*tool, self.of(*tool, case, value)?)));
        medians.min_by(|(_, one), (_, other)| one.total_cmp(other))
    }

    /// One tool's median divided by the least of others'.
    pub(crate) fn ratio(
        &self,
        (tool, case): (T, C),
        (others, their_case): (&[T], C),
        value: fn(&Sample<T, C>) -> f64,
    ) -> Option<f64> {
        let theirs = self.best(others, their_case, value)?.1;
        Some(self.of(tool, case, value)? / theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cost, Medians, Sample};

    fn sample(tool: char, cpu_s: f64) -> Sample<char, u8> {
        let cost = Cost {
            wall_s: 10.0 * cpu_s,
            cpu_s,
            served_s: 0.0,
            peak_mib: 1.0,
        };
        let (case, stored) = (1, 0);
        Sample {
            tool,
            case,
            cost,
            stored,
        }
    }

    #[test]
    fn a_ratio_is_of_the_median_and_the_best_of_the_others_medians() {
        let samples = [
            sample('a', 1.0),
            sample('a', 3.0),
            sample('a', 2.0),
            sample('b', 8.0),
            sample('c', 1.0),
            sample('c', 9.0),
            sample('c', 4.0),
        ];
        let medians = Medians(&samples);
        assert_eq!(medians.best(&['b', 'c'], 1, Sample::cpu), Some(('c', 4.0)));
        let ratio = medians.ratio(('a', 1), (&['b', 'c'], 1), Sample::cpu);
        assert_eq!(ratio, Some(0.5));
        assert_eq!(medians.of('a', 2, Sample::cpu), None);
        assert_eq!(medians.ratio(('a', 1), (&['d'], 1), Sample::cpu), None);
    }
}
