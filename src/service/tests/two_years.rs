//! Two years in the life of many keys: whatever is asked for and whatever falls due,
//! through restarts, outages of days and a clock that steps back and forth, against a
//! small model of what ought to be. The model knows states and instants and nothing of
//! how the service comes by them.

mod checks;
mod dice;
mod hsm;
mod model;
mod world;

use std::collections::BTreeMap;

use self::dice::Dice;
use self::model::State;
use self::world::{Shelf, World};
use super::*;

/// How long it goes on, in steps of six hours.
const STEPS: u64 = 2 * 365 * 4;

/// What can happen at a step, beside that time goes on.
async fn happen(world: &mut World, dice: &mut Dice, requests: u64) {
    for _ in 0..requests {
        world.ask_something(dice).await;
    }
    match dice.below(200) {
        // Days of downtime: nothing is done meanwhile, and all of it at once after.
        0 => {
            world.stop(dice.flip()).await;
            world.pass(Period::days(1 + dice.below(9)));
            world.start().await;
        }
        1 => {
            world.stop(dice.flip()).await;
            world.start().await;
        }
        2 => world.pass(Period::days(1 + dice.below(3))),
        3 | 4 => world.step_back(Period::seconds(1 + dice.below(1_800))),
        _ => {}
    }
    world.pass(Period::seconds(6 * 3_600));
    world.do_what_is_due().await;
}

async fn live(mut world: World, keys: usize, seed: u64, requests: u64) {
    let mut dice = Dice::new(seed);
    for number in 0..keys {
        world.make_key(&mut dice).await;
        if number % 500 == 499 {
            world.pass(Period::seconds(3_600));
        }
    }
    for step in 0..STEPS {
        happen(&mut world, &mut dice, requests).await;
        if step % 365 == 0 {
            world.hold_against_the_model().await;
        }
    }
    world.hold_against_the_model().await;
    world.hold_against_the_ledger().await;
    // It was about something.
    let states = world.count_states();
    for state in ["active", "archived", "gone"] {
        assert!(states[state] > keys / 50, "{state} of {states:?}");
    }
    assert!(world.number_of_keys() >= 2 * keys, "{states:?}");
}

#[tokio::test]
async fn ten_thousand_keys_live_as_the_model_says_for_two_years() {
    live(
        World::new(Shelf::memory(), HsmBackendName::Software).await,
        10_000,
        33,
        8,
    )
    .await;
}

#[tokio::test]
async fn so_do_keys_that_a_token_keeps_in_a_store_on_the_disk() {
    live(
        World::new(Shelf::disk(), HsmBackendName::Pkcs11).await,
        120,
        34,
        1,
    )
    .await;
}

type Counts = BTreeMap<&'static str, usize>;

fn name_of(state: &State) -> &'static str {
    match state {
        State::Active => "active",
        State::Pending { .. } => "pending",
        State::Archived => "archived",
        State::Waiting { .. } => "waiting",
        State::Gone => "gone",
    }
}
