//! What is asked for in one request, item by item.

/// The most items of one batch: a thousand receipts are one write of a few
/// milliseconds, for which everybody else waits.
pub const LARGEST_BATCH: usize = 1_000;

/// Things to be done with one key in one request: at least one, and at most
/// [`LARGEST_BATCH`].
///
/// Without `Debug`, since it may hold plaintexts.
pub struct Batch<I>(Vec<I>);

impl<I> Batch<I> {
    /// A batch of these, or `None` where they are none or too many.
    pub fn new(items: Vec<I>) -> Option<Self> {
        (1..=LARGEST_BATCH)
            .contains(&items.len())
            .then_some(Self(items))
    }

    /// How many they are.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// They, in their order.
    pub fn items(&self) -> &[I] {
        &self.0
    }

    /// What belongs to each, and the batch without that.
    pub fn split<A, B>(self, split: impl FnMut(I) -> (A, B)) -> (Vec<A>, Batch<B>) {
        let (apart, items) = self.0.into_iter().map(split).unzip();
        (apart, Batch(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_one_to_a_thousand_items() {
        for (size, is_batch) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
            assert_eq!(Batch::new(vec![(); size]).is_some(), is_batch, "{size}");
        }
    }
}
