//! `limits.*`: how fast one caller may go.
//!
//! It knows the numbers, and not who is counted or how.

use std::num::NonZeroU32;

use crate::domain::rate::{Rate, RateGroup, RatePolicy};

use super::reader::Reader;
use super::value::{Outcome, Raw, whole};

/// The rates of one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Over all, and for the groups of operations that have a rate of their own.
    pub rates: RatePolicy,
}

/// The settings of each group.
const GROUPS: [(RateGroup, &str, &str); RateGroup::COUNT] = [
    (
        RateGroup::Lifecycle,
        "limits.groups.lifecycle.requests_per_second",
        "limits.groups.lifecycle.burst",
    ),
    (
        RateGroup::Sign,
        "limits.groups.sign.requests_per_second",
        "limits.groups.sign.burst",
    ),
    (
        RateGroup::Verify,
        "limits.groups.verify.requests_per_second",
        "limits.groups.verify.burst",
    ),
    (
        RateGroup::Encrypt,
        "limits.groups.encrypt.requests_per_second",
        "limits.groups.encrypt.burst",
    ),
    (
        RateGroup::Decrypt,
        "limits.groups.decrypt.requests_per_second",
        "limits.groups.decrypt.burst",
    ),
    (
        RateGroup::Read,
        "limits.groups.read.requests_per_second",
        "limits.groups.read.burst",
    ),
];

impl Limits {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let default = Rate {
            requests_per_second: reader.take("limits.requests_per_second", number),
            burst: reader.take("limits.burst", number),
        };
        let mut groups = [None; RateGroup::COUNT];
        for (group, requests_per_second, burst) in GROUPS {
            let own = (
                reader.take_optional(requests_per_second, number),
                reader.take_optional(burst, number),
            );
            // Either of the two makes a rate; the other is then the general one.
            if let (Some(_), _) | (_, Some(_)) = own {
                groups[group.index()] = Some(Rate {
                    requests_per_second: own.0.unwrap_or(default.requests_per_second),
                    burst: own.1.unwrap_or(default.burst),
                });
            }
        }
        Self {
            rates: RatePolicy { default, groups },
        }
    }
}

fn number(raw: &Raw) -> Outcome<NonZeroU32> {
    whole(1..=1_000_000)(raw)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Given, faults_of, load};
    use super::*;

    fn of(given: &Given, group: RateGroup) -> Option<(u32, u32)> {
        load(given).config.limits.rates.groups[group.index()]
            .map(|rate| (rate.requests_per_second.get(), rate.burst.get()))
    }

    #[test]
    fn a_group_with_half_a_rate_takes_the_other_half_from_the_general_one() {
        let given = Given::new("development")
            .set("KMS__LIMITS__REQUESTS_PER_SECOND", "70")
            .set("KMS__LIMITS__GROUPS__SIGN__BURST", "9")
            .set("KMS__LIMITS__GROUPS__VERIFY__REQUESTS_PER_SECOND", "2000")
            .set("KMS__LIMITS__GROUPS__READ__REQUESTS_PER_SECOND", "5")
            .set("KMS__LIMITS__GROUPS__READ__BURST", "6");
        assert_eq!(of(&given, RateGroup::Sign), Some((70, 9)));
        assert_eq!(of(&given, RateGroup::Verify), Some((2000, 500)));
        assert_eq!(of(&given, RateGroup::Read), Some((5, 6)));
        for group in [RateGroup::Lifecycle, RateGroup::Encrypt, RateGroup::Decrypt] {
            assert_eq!(of(&given, group), None, "{group:?}");
        }
    }

    #[test]
    fn a_rate_of_nothing_is_refused_and_so_is_a_group_that_is_none() {
        let given = Given::new("development")
            .set("KMS__LIMITS__GROUPS__SIGN__BURST", "0")
            .set("KMS__LIMITS__GROUPS__SING__BURST", "1");
        let faults = faults_of(&given);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults.iter().any(|fault| {
            fault.starts_with("limits.groups.sign.burst (KMS__LIMITS__GROUPS__SIGN__BURST)")
                && fault.contains("from 1 to 1000000")
        }));
        assert!(
            faults
                .iter()
                .any(|fault| { fault.contains("is KMS__LIMITS__GROUPS__SIGN__BURST meant?") })
        );
    }

    #[test]
    fn the_place_of_each_group_is_its_own() {
        let mut places: Vec<usize> = GROUPS.iter().map(|(group, ..)| group.index()).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3, 4, 5]);
    }
}
