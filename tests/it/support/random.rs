//! Random choices that a seed makes again.

/// A number that whoever runs the tests may set in the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "a setting of the tests and not of the service"
)]
pub(crate) fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a whole number")),
    )
}

/// A seed, set by this name in the environment or drawn, that is told when the test
/// fails.
pub(crate) struct Seed {
    name: &'static str,
    number: u64,
}

impl Seed {
    pub(crate) fn of(name: &'static str) -> Self {
        let number = setting(name).unwrap_or_else(|| {
            let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
            high ^ low
        });
        Self { name, number }
    }

    /// The choices that follow from it.
    pub(crate) fn random(&self) -> Random {
        Random(self.number)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}={}", self.name, self.number);
        }
    }
}

/// A source of choices (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// Another source, whose choices follow from this one.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.number())
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = self.number() % end as u64;
        usize::try_from(number).expect("below a usize")
    }

    /// Yes, so many times in a hundred.
    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of these, if there are any.
    pub(crate) fn pick<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        match among.len() {
            0 => None,
            length => among.get(self.below(length)),
        }
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| self.number().to_le_bytes()[0])
            .collect()
    }
}
