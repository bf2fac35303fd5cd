//! The items of a batch on a few sessions at once, and their results in order.

use crate::ports::hsm::HsmError;

/// Makes a call for each item, four at a time; after the first failure no more.
///
/// # Errors
/// The first failure.
pub(super) async fn in_lanes<I, T, F>(
    items: Vec<I>,
    call: impl Fn(I) -> F,
) -> Result<Vec<T>, HsmError>
where
    F: Future<Output = Result<T, HsmError>>,
{
    const LANES: usize = 4;
    let in_all = items.len();
    let lane_length = in_all.div_ceil(LANES);
    let mut items = items.into_iter();
    let mut next_lane = || items.by_ref().take(lane_length).collect::<Vec<I>>();
    let lanes = (next_lane(), next_lane(), next_lane(), next_lane());
    let (mut done, second, third, fourth) = tokio::try_join!(
        one_by_one(lanes.0, &call),
        one_by_one(lanes.1, &call),
        one_by_one(lanes.2, &call),
        one_by_one(lanes.3, &call),
    )?;
    done.reserve(in_all - done.len());
    done.extend(second.into_iter().chain(third).chain(fourth));
    Ok(done)
}

async fn one_by_one<I, T, F>(items: Vec<I>, call: impl Fn(I) -> F) -> Result<Vec<T>, HsmError>
where
    F: Future<Output = Result<T, HsmError>>,
{
    let mut done = Vec::with_capacity(items.len());
    for item in items {
        done.push(call(item).await?);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ports::hsm::HsmFault;

    #[tokio::test]
    async fn results_come_in_the_order_of_the_items() {
        for length in [0, 1, 3, 4, 5, 10, 1_000] {
            let items: Vec<usize> = (0..length).collect();
            let results = in_lanes(items.clone(), async |item| {
                // The later in its lane, the more often others go first.
                for _ in 0..item % 3 {
                    tokio::task::yield_now().await;
                }
                Ok(item)
            });
            assert_eq!(results.await.expect("no failure"), items);
        }
    }

    #[tokio::test]
    async fn a_failure_ends_all_of_it() {
        let calls = Cell::new(0);
        let results = in_lanes((0..1_000).collect(), async |item: usize| {
            calls.set(calls.get() + 1);
            tokio::task::yield_now().await;
            match item {
                1 => Err(HsmError::Fault(HsmFault::Missing)),
                _ => Ok(item),
            }
        });
        let failure = results.await.err();
        assert!(matches!(failure, Some(HsmError::Fault(HsmFault::Missing))));
        assert!(calls.get() < 20, "{}", calls.get());
    }
}
