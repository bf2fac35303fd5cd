//! Where the pair of a new RSA key comes from: out of the stock, or made for it by a
//! thread that generates. Knows nothing of permits.

use std::sync::Arc;

use super::SoftwareHsmSettings;
use super::cpu_pool::CpuPool;
use super::seal::SecretBinding;
use super::stock::{SealedPair, Stock};
use super::vault::Vault;
use super::workers::{SpareJob, WorkerSettings, Workers};
use crate::ports::hsm::{GeneratedKey, HsmError, HsmFault};
use crate::telemetry::metrics::Metrics;

/// Half of the cores at most, for a generation takes a hundred times as long as a
/// signature, and behind every other thread of the process: a quarter of a core that
/// signatures want too, and a thirtieth of one that async workers never leave.
fn generation(cores: usize) -> WorkerSettings {
    WorkerSettings {
        name: "kms-generation",
        threads_at_most: (cores / 2).max(1),
        nice: 15,
    }
}

/// RSA pairs, those in stock and those to be made.
pub(super) struct RsaPairs {
    vault: Arc<Vault>,
    stock: Arc<Stock>,
    generations: Workers,
}

impl RsaPairs {
    /// No pair is made and no thread is started before somebody asks for a key, or
    /// for [`RsaPairs::begin_stock`].
    pub(super) fn new(vault: Arc<Vault>, settings: &SoftwareHsmSettings) -> Self {
        let stock = Arc::new(Stock::new(settings.rsa_stock));
        let spare = {
            let (vault, stock) = (Arc::clone(&vault), Arc::clone(&stock));
            Box::new(move || restocking(&vault, &stock))
        };
        Self {
            vault,
            stock,
            generations: Workers::new(generation(settings.cores), spare),
        }
    }

    /// From now on pairs are made beforehand, and these metrics count them.
    pub(super) fn begin_stock(&self, metrics: Arc<Metrics>) {
        self.stock.report_to(metrics);
        if self.stock.open() {
            self.generations.begin_spare();
        }
    }

    /// No more pairs are made beforehand. Those that are ready may still be taken.
    pub(super) fn end_stock(&self) {
        self.stock.close();
    }

    /// Drops every pair in stock and makes others. The key-encryption key was replaced,
    /// and what it was replaced for counts for these pairs, too.
    pub(super) fn renew_stock(&self) {
        self.stock.clear();
        self.generations.look_for_spare();
    }

    /// Drops every pair in stock and makes no more, for nobody; waits for the end of
    /// those that were begun.
    pub(super) async fn stop(&self) {
        self.stock.close();
        self.stock.clear();
        self.generations.stop().await;
    }

    /// Makes an RSA key, of a pair in stock where there is one.
    ///
    /// # Errors
    /// As for [`Workers::run`]; [`HsmError::Fault`] when the pair does not open
    /// or does not prove itself.
    pub(super) async fn make_key(
        &self,
        pool: &CpuPool,
        binding: SecretBinding,
    ) -> Result<GeneratedKey, HsmError> {
        if let Some(pair) = self.stock.take() {
            self.generations.look_for_spare();
            let (vault, binding) = (Arc::clone(&self.vault), binding.clone());
            // Three signatures' worth of work, so there is no reason to wait behind a
            // generation for it.
            let made = pool.run(move || pair.into_key(&vault, binding)).await?;
            if let Some(key) = made.map_err(HsmError::Fault)? {
                self.stock.count_pair(true);
                return Ok(key);
            }
        }
        let (vault, stock) = (Arc::clone(&self.vault), Arc::clone(&self.stock));
        let job = move || -> Result<_, HsmFault> {
            // One that was being made when this caller came is ready by now.
            if let Some(pair) = stock.take()
                && let Some(key) = pair.into_key(&vault, binding.clone())?
            {
                return Ok((key, true));
            }
            Ok((vault.make(binding)?, false))
        };
        let made = self.generations.run(job).await?;
        let (key, was_in_stock) = made.map_err(HsmError::Fault)?;
        self.stock.count_pair(was_in_stock);
        Ok(key)
    }
}

/// What a thread does while nobody waits: one pair for the stock, where that has room.
fn restocking(vault: &Arc<Vault>, stock: &Arc<Stock>) -> Option<SpareJob> {
    let room = stock.room()?;
    let vault = Arc::clone(vault);
    Some(Box::new(move || {
        room.fill(SealedPair::make(&vault)?, &vault);
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use super::super::kek::KeyEncryptionKey;
    use super::super::{SoftwareHsm, seal};
    use super::*;
    use crate::domain::algorithm::KeyType;
    use crate::domain::key::tests::active_key;

    #[test]
    fn at_most_half_of_the_cores_generate() {
        for (cores, threads) in [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4)] {
            assert_eq!(generation(cores).threads_at_most, threads);
        }
    }

    /// How long anything may take that a test waits for.
    const DEADLINE: Duration = Duration::from_secs(60);

    fn kek(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::derive(&[byte; 32]).expect("derives")
    }

    /// A software HSM with so large a stock, and what counts in it.
    fn hsm(rsa_stock: usize) -> (SoftwareHsm, Arc<Metrics>) {
        let settings = SoftwareHsmSettings {
            rsa_stock,
            cores: 2,
            ..SoftwareHsmSettings::default()
        };
        let metrics = Arc::new(Metrics::new("test").expect("names are unique"));
        (SoftwareHsm::new(kek(1), settings), metrics)
    }

    async fn make(hsm: &SoftwareHsm) -> Result<GeneratedKey, HsmError> {
        let binding = SecretBinding {
            key_type: KeyType::Rsa2048,
            ..SecretBinding::of(&active_key())
        };
        hsm.pairs.make_key(&hsm.pool, binding).await
    }

    fn value(metrics: &Metrics, series: &str) -> u64 {
        let text = String::from_utf8(metrics.render().expect("encodes")).expect("UTF-8");
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("{series} in {text}"))
    }

    fn ready(metrics: &Metrics) -> u64 {
        value(metrics, "kms_rsa_stock ")
    }

    fn from_stock(metrics: &Metrics) -> u64 {
        value(metrics, r#"kms_rsa_pairs_total{source="stock"}"#)
    }

    fn generated(metrics: &Metrics) -> u64 {
        value(metrics, r#"kms_rsa_pairs_total{source="generated"}"#)
    }

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < DEADLINE, "{what} did not come to be");
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn keys_come_from_the_stock_while_it_has_pairs_and_it_is_filled_up_again() {
        let (hsm, metrics) = hsm(2);
        hsm.begin_stock(Arc::clone(&metrics));
        wait_until("a full stock", || ready(&metrics) == 2);
        hsm.end_stock();
        let mut public_keys = BTreeSet::new();
        for _ in 0..3 {
            let key = make(&hsm).await.expect("makes");
            public_keys.extend(key.public_key);
        }
        assert_eq!((from_stock(&metrics), generated(&metrics)), (2, 1));
        assert_eq!(public_keys.len(), 3, "each pair serves one key");
        assert_eq!(ready(&metrics), 0);
        hsm.begin_stock(Arc::clone(&metrics));
        wait_until("a full stock", || ready(&metrics) == 2);
        make(&hsm).await.expect("makes");
        wait_until("a full stock", || ready(&metrics) == 2);
    }

    #[tokio::test]
    async fn without_a_stock_each_pair_is_made_for_its_key() {
        let (hsm, metrics) = hsm(0);
        hsm.begin_stock(Arc::clone(&metrics));
        make(&hsm).await.expect("makes");
        assert_eq!((from_stock(&metrics), generated(&metrics)), (0, 1));
        assert_eq!(ready(&metrics), 0);
        assert!(restocking(&hsm.vault, &hsm.pairs.stock).is_none());
    }

    #[tokio::test]
    async fn a_new_key_encryption_key_replaces_the_stock_and_does_not_wait_for_it() {
        let (hsm, metrics) = hsm(1);
        hsm.begin_stock(Arc::clone(&metrics));
        wait_until("a full stock", || ready(&metrics) == 1);
        // So that nothing is being made and nothing new can come.
        hsm.end_stock();
        hsm.seal_with(kek(2));
        assert_eq!(ready(&metrics), 0);
        assert!(!hsm.has_unsettled());
        hsm.begin_stock(Arc::clone(&metrics));
        wait_until("a full stock", || ready(&metrics) == 1);
        hsm.forget_other_keks();
        let key = make(&hsm).await.expect("makes");
        assert_eq!(from_stock(&metrics), 1);
        assert_eq!(seal::sealed_under(key.handle.as_bytes()), Some(kek(2).id()));
        // The key that was made of it is unsettled, as any other.
        hsm.seal_with(kek(3));
        assert!(hsm.has_unsettled());
        drop(key);
        wait_until("an end", || !hsm.has_unsettled());
    }

    #[tokio::test]
    async fn a_pair_under_a_replaced_key_is_made_up_for_by_another() {
        let (hsm, metrics) = hsm(1);
        hsm.begin_stock(Arc::clone(&metrics));
        wait_until("a full stock", || ready(&metrics) == 1);
        hsm.end_stock();
        // As it is for a caller who has taken a pair just before.
        hsm.vault.seal_with(kek(2));
        hsm.vault.forget_others();
        let key = make(&hsm).await.expect("makes");
        assert_eq!(seal::sealed_under(key.handle.as_bytes()), Some(kek(2).id()));
        assert_eq!((from_stock(&metrics), generated(&metrics)), (0, 1));
    }

    #[tokio::test]
    async fn who_waits_gets_the_pair_that_was_being_made_when_they_came() {
        let (hsm, metrics) = hsm(1);
        hsm.pairs.stock.report_to(Arc::clone(&metrics));
        assert!(hsm.pairs.stock.open());
        let room = hsm.pairs.stock.room().expect("there is room");
        let (held, has_started, release) = super::super::cpu_pool::tests::held();
        let mut running = Box::pin(hsm.pairs.generations.run(held));
        let mut waiting = Box::pin(make(&hsm));
        tokio::select! {
            biased;
            _ = &mut running => panic!("it is held"),
            _ = &mut waiting => panic!("there is no pair, and no thread to make one"),
            started = has_started => started.expect("it runs"),
        }
        let pair = SealedPair::make(&hsm.vault).expect("makes");
        room.fill(pair, &hsm.vault);
        release.send(()).expect("it waits");
        running.await.expect("ran");
        waiting.await.expect("makes");
        assert_eq!((from_stock(&metrics), generated(&metrics)), (1, 0));
    }

    #[tokio::test]
    async fn after_the_stop_nothing_is_ready_and_nothing_is_made() {
        let (hsm, metrics) = hsm(2);
        hsm.begin_stock(Arc::clone(&metrics));
        wait_until("a pair", || ready(&metrics) > 0);
        hsm.stop().await;
        assert_eq!(ready(&metrics), 0);
        assert!(matches!(make(&hsm).await, Err(HsmError::Unavailable(_))));
        // Nothing but the HSM holds them: no thread is left.
        assert_eq!(Arc::strong_count(&hsm.pairs.stock), 2);
    }
}
