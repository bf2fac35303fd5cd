//! The bytes of a write-ahead log: its header, its frames, its checksum.

use std::ops::RangeInclusive;

pub(super) const HEADER_LEN: usize = 32;
pub(super) const FRAME_HEADER_LEN: usize = 24;
/// The last bit says in which order of bytes the checksums are.
const MAGIC: u32 = 0x377f_0682;

/// A log's header that checks out.
pub(super) struct Header {
    pub(super) order: Order,
    pub(super) page_size: usize,
    pub(super) salts: [u8; 8],
    /// From what the first frame goes on.
    pub(super) sum: Sum,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let magic = number(bytes, 0);
        let order = match magic & 1 {
            0 => Order::Little,
            _ => Order::Big,
        };
        let page_size = usize::try_from(number(bytes, 8)).ok()?;
        let sum = Sum::START.plus(order, &bytes[..24]);
        let is_good =
            magic & !1 == MAGIC && is_page_size(page_size) && sum == Sum::stored(&bytes[24..]);
        is_good.then(|| Self {
            order,
            page_size,
            salts: salts(bytes, 16),
            sum,
        })
    }
}

/// A frame: its header and its page.
pub(super) struct Frame<'a>(pub(super) &'a [u8]);

impl Frame<'_> {
    pub(super) fn page(&self) -> u32 {
        number(self.0, 0)
    }

    /// How many pages the database has after a commit; else zero.
    pub(super) fn database_size(&self) -> u32 {
        number(self.0, 4)
    }

    pub(super) fn is_commit(&self) -> bool {
        self.database_size() != 0
    }

    pub(super) fn salts(&self) -> [u8; 8] {
        salts(self.0, 8)
    }

    pub(super) fn stored_sum(&self) -> Sum {
        Sum::stored(&self.0[16..FRAME_HEADER_LEN])
    }

    pub(super) fn sum(&self, order: Order, before: Sum) -> Sum {
        before
            .plus(order, &self.0[..8])
            .plus(order, &self.0[FRAME_HEADER_LEN..])
    }

    /// Salts and checksum are zero where a file has grown and nothing came, and
    /// in what SQLite writes of a large transaction before its end.
    pub(super) fn is_unfinished(&self) -> bool {
        self.0[8..FRAME_HEADER_LEN].iter().all(|byte| *byte == 0)
    }

    /// Whether this was written as a commit, where the checksum is right and
    /// something else is not. The size says so, unless it is the size: without one
    /// the frame would check out, or with one of these sizes that is a single bit,
    /// which a flip has taken.
    pub(super) fn was_commit(
        &self,
        order: Order,
        before: Sum,
        sizes: &RangeInclusive<u32>,
    ) -> bool {
        let [page, data] = [&self.0[..4], &self.0[FRAME_HEADER_LEN..]];
        let checks_out_with = |size: u32| {
            let mut head = [0; 8];
            head[..4].copy_from_slice(page);
            head[4..].copy_from_slice(&size.to_be_bytes());
            before.plus(order, &head).plus(order, data) == self.stored_sum()
        };
        match self.is_commit() {
            true => !checks_out_with(0),
            false => (0..u32::BITS)
                .map(|bit| 1 << bit)
                .any(|size| sizes.contains(&size) && checks_out_with(size)),
        }
    }
}

/// The order of bytes in the numbers that are summed up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    pub(super) const NATIVE: Self = match cfg!(target_endian = "big") {
        true => Self::Big,
        false => Self::Little,
    };

    pub(super) const fn number(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

/// The log's running checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum(pub(super) u32, pub(super) u32);

impl Sum {
    pub(super) const START: Self = Self(0, 0);

    /// A checksum as the file has it, always the high byte first.
    pub(super) fn stored(bytes: &[u8]) -> Self {
        Self(number(bytes, 0), number(bytes, 4))
    }

    /// The checksum after these bytes too, a multiple of eight.
    pub(super) fn plus(self, order: Order, bytes: &[u8]) -> Self {
        let Self(mut first, mut second) = self;
        for pair in bytes.as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *pair;
            first = first
                .wrapping_add(order.number([a, b, c, d]))
                .wrapping_add(second);
            second = second
                .wrapping_add(order.number([e, f, g, h]))
                .wrapping_add(first);
        }
        Self(first, second)
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn salts(bytes: &[u8], at: usize) -> [u8; 8] {
    std::array::from_fn(|offset| bytes[at + offset])
}

pub(super) fn is_page_size(size: usize) -> bool {
    size.is_power_of_two() && (512..=65_536).contains(&size)
}
