//! The chain's blocks: one every two seconds, as on Base, and one more for each transaction.
//!
//! Only blocks with a transaction are kept; those between follow from them by arithmetic, so a
//! clock that jumps a year costs nothing.

use crate::clock::UnixSeconds;

/// Time between two empty blocks.
pub const BLOCK_SECONDS: u64 = 2;

/// High enough that looking back never meets block 0.
const FIRST: u64 = 20_000_000;

/// A block's number and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its height.
    pub number: u64,
    /// When it was made.
    pub timestamp: UnixSeconds,
}

/// The first block and those with a transaction, ascending; never empty.
#[derive(Debug)]
pub(super) struct Blocks(Vec<Block>);

impl Blocks {
    pub(super) fn starting_at(now: UnixSeconds) -> Self {
        Blocks(vec![Block { number: FIRST, timestamp: now }])
    }

    /// The newest block. A clock that was set back makes none.
    pub(super) fn head(&self, now: UnixSeconds) -> Block {
        let last = self.last();
        let empty = now.saturating_sub(last.timestamp) / BLOCK_SECONDS;
        Block { number: last.number + empty, timestamp: last.timestamp + empty * BLOCK_SECONDS }
    }

    /// Adds the block of a transaction made now.
    pub(super) fn mine(&mut self, now: UnixSeconds) -> Block {
        let head = self.head(now);
        let block = Block { number: head.number + 1, timestamp: now.max(head.timestamp) };
        self.0.push(block);
        block
    }

    pub(super) fn get(&self, number: u64, now: UnixSeconds) -> Option<Block> {
        if number > self.head(now).number {
            return None;
        }
        let timestamp = match self.0.partition_point(|block| block.number <= number).checked_sub(1) {
            Some(index) => {
                let before = self.0[index];
                before.timestamp + (number - before.number) * BLOCK_SECONDS
            }
            None => self.0[0].timestamp.saturating_sub((FIRST - number) * BLOCK_SECONDS),
        };
        Some(Block { number, timestamp })
    }

    fn last(&self) -> Block {
        self.0.last().copied().unwrap_or(Block { number: FIRST, timestamp: 0 })
    }
}
