//! A tree's reader that keeps a bandwidth limit.

use std::num::NonZeroU64;
use std::sync::Arc;

use snapkeep_api::tree::{Name, TreeNode, TreeReader, TreeTotals};
use snapkeep_api::{Cancel, Clock, Region, Result, Throttle};

pub(crate) struct Paced {
    reader: Arc<dyn TreeReader>,
    throttle: Throttle,
    clock: Arc<dyn Clock>,
    cancel: Cancel,
}

impl Paced {
    /// With a limit in bytes of content per second, or without one.
    pub(crate) fn new(
        reader: Arc<dyn TreeReader>,
        limit: Option<NonZeroU64>,
        clock: Arc<dyn Clock>,
        cancel: Cancel,
    ) -> Self {
        Self {
            reader,
            throttle: Throttle::new(limit),
            clock,
            cancel,
        }
    }
}

impl TreeReader for Paced {
    fn root(&self) -> Result<TreeNode> {
        self.reader.root()
    }

    fn totals(&self) -> TreeTotals {
        self.reader.totals()
    }

    fn list(
        &self,
        directory: &TreeNode,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, TreeNode)>> {
        self.reader.list(directory, after, max)
    }

    fn lookup(&self, directory: &TreeNode, name: &Name) -> Result<Option<TreeNode>> {
        self.reader.lookup(directory, name)
    }

    fn read_at(&self, file: &TreeNode, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        self.throttle.take(&*self.clock, &self.cancel, length);
        self.reader.read_at(file, offset, buffer)
    }

    fn next_data(&self, file: &TreeNode, offset: u64) -> Result<Option<Region>> {
        self.reader.next_data(file, offset)
    }
}
