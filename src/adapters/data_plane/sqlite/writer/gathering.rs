//! How long the writer lets others come to share its next write. A write has a cost of its
//! own, about that of ten receipts, and takes it from those who work.

use std::time::Duration;

/// From so many transactions in the last write on, the next one gathers more first: of
/// those who come alone the first waits, and nobody after it.
const MANY: usize = 4;

/// How long it gathers them.
const BEHIND_MANY: Duration = Duration::from_micros(100);

/// How long it waits for each of those who wait for a core or a session themselves: two
/// cores make an RSA signature in about this time.
const FOR_EACH: Duration = Duration::from_micros(100);

/// It waits until this many have come; and while none is among them that took but a moment,
/// until as many have come as still wait for that core or session. A write costs a third
/// of an RSA signature, so all of them get theirs sooner; and there are others left, so
/// that no core is without work meanwhile.
const FEWEST: usize = 8;
const MOST: usize = 32;

/// The first pause, behind a write that so many shared.
pub(super) fn first_pause(last_batch: usize) -> Option<Duration> {
    (last_batch >= MANY).then_some(BEHIND_MANY)
}

/// Those who came so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathered {
    /// How many.
    pub(super) number: usize,
    /// Whether the work of each took long.
    pub(super) all_took_long: bool,
}

/// The next pause, where these came and `waiting` wait for a core or a session;
/// `waited` is what these pauses came to so far.
pub(super) fn next_pause(gathered: Gathered, waiting: usize, waited: Duration) -> Option<Duration> {
    if waiting == 0 {
        return None;
    }
    let enough = match gathered.all_took_long {
        true => waiting.clamp(FEWEST, MOST),
        false => FEWEST,
    };
    let missing = u32::try_from(enough.saturating_sub(gathered.number)).ok()?;
    let left = (FOR_EACH * enough as u32).saturating_sub(waited);
    // A part of what they take, and not long at once, for some work is done faster.
    let pause = (FOR_EACH * missing / 4).clamp(FOR_EACH / 2, FOR_EACH * 2);
    (missing > 0 && !left.is_zero()).then(|| pause.min(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many come, and how long it waits in all, where so many are in line and one of
    /// them comes in each `arrival`.
    fn waits(in_line: usize, arrival: Duration) -> (usize, Duration) {
        let mut waited = Duration::ZERO;
        let mut gathered = long(1);
        while let Some(pause) = next_pause(gathered, in_line + 1 - gathered.number, waited) {
            assert!(!pause.is_zero());
            waited += pause;
            let came = (waited.as_micros() / arrival.as_micros()) as usize;
            gathered = long(1 + came.min(in_line));
        }
        (gathered.number, waited)
    }

    fn long(number: usize) -> Gathered {
        Gathered {
            number,
            all_took_long: true,
        }
    }

    fn mixed(number: usize) -> Gathered {
        Gathered {
            number,
            all_took_long: false,
        }
    }

    #[test]
    fn nobody_waits_where_few_came_and_nobody_waits_for_a_core() {
        assert_eq!(first_pause(MANY - 1), None);
        assert_eq!(first_pause(MANY), Some(BEHIND_MANY));
        assert_eq!(next_pause(long(1), 0, Duration::ZERO), None);
    }

    #[test]
    fn half_of_those_in_line_share_a_write() {
        let micros = Duration::from_micros;
        for (in_line, half) in [(12, 8), (16, 8), (28, 14), (60, 30), (1_000, 32)] {
            let (gathered, waited) = waits(in_line, micros(80));
            assert!(
                (half..half + 4).contains(&gathered),
                "{in_line}: {gathered}"
            );
            assert!(waited <= FOR_EACH * half as u32, "{in_line}: {waited:?}");
            // Where they come fast, it does not wait as if they did not.
            let (gathered, waited) = waits(in_line, micros(20));
            assert!(gathered >= half, "{in_line}: {gathered}");
            assert!(waited <= micros(40) * half as u32, "{in_line}: {waited:?}");
        }
    }

    #[test]
    fn whoever_took_a_moment_waits_for_few() {
        let for_few = FOR_EACH * FEWEST as u32;
        assert!(next_pause(long(FEWEST), 100, for_few).is_some());
        assert_eq!(next_pause(mixed(FEWEST), 100, Duration::ZERO), None);
        assert!(next_pause(mixed(FEWEST - 1), 100, Duration::ZERO).is_some());
        assert_eq!(next_pause(mixed(1), 100, for_few), None);
    }

    #[test]
    fn it_goes_on_where_the_line_is_empty_or_nobody_comes() {
        let (gathered, waited) = waits(3, Duration::from_micros(100));
        assert!(gathered == 4 && waited < FOR_EACH * 5, "{waited:?}");
        for (in_line, most) in [(1, 8), (16, 16), (1_000, 32)] {
            let (gathered, waited) = waits(in_line, Duration::from_secs(1));
            assert_eq!((gathered, waited), (1, FOR_EACH * most), "{in_line}");
        }
    }
}
