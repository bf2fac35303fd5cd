//! Whoever makes a key holds on to all of it until it is known whether the store has
//! it: a key-encryption key that sealed it must not go before.

use super::store::Next;
use super::*;

#[tokio::test]
async fn a_key_that_may_be_stored_is_claimed_until_the_store_tells() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = [Some(Next::Fail), Some(Next::KeepAndFail), Some(Next::Stall)];
    for (number, next) in cases.into_iter().chain([None]).enumerate() {
        let bench = bench();
        let is_in_doubt = next.is_some();
        if let Some(next) = next {
            bench.store.next(next);
        }
        tokio::select! {
            made = bench.generate() => assert_eq!(made.is_err(), is_in_doubt),
            // Whoever waits gives up in the end.
            () = bench.store.stalled() => {}
        }
        let path = folder.path().join(number.to_string());
        let kek = KeyEncryptionKey::create(path).expect("created");
        bench.hsm.software().seal_with(kek);
        assert_eq!(bench.hsm.software().has_unsettled(), is_in_doubt);
        bench.service.probe_health().await;
        assert!(!bench.hsm.software().has_unsettled());
    }
}
