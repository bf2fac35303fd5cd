//! Where the pair of a new RSA key comes from: out of the stock, or made for it by a
//! thread that generates. Knows nothing of permits.

use std::sync::Arc;

use super::SoftwareHsmSettings;
use super::cpu_pool::CpuPool;
use super::generation::{GenerationPool, SpareJob};
use super::seal::SecretBinding;
use super::stock::{SealedPair, Stock};
use super::vault::Vault;
use crate::ports::hsm::{GeneratedKey, HsmError, HsmFault};
use crate::telemetry::metrics::Metrics;

/// RSA pairs, those in stock and those to be made.
pub(super) struct RsaPairs {
    vault: Arc<Vault>,
    stock: Arc<Stock>,
    generations: GenerationPool,
}

impl RsaPairs {
    /// No pair is made and no thread is started before somebody asks for a key, or
    /// for [`RsaPairs::begin_stock`].
    pub(super) fn new(vault: Arc<Vault>, settings: SoftwareHsmSettings) -> Self {
        let stock = Arc::new(Stock::new(settings.rsa_stock));
        let spare = {
            let (vault, stock) = (Arc::clone(&vault), Arc::clone(&stock));
            Box::new(move || restocking(&vault, &stock))
        };
        Self {
            vault,
            stock,
            generations: GenerationPool::new(settings.cores, spare),
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
    /// As for [`GenerationPool::run`]; [`HsmError::Fault`] when the pair does not open
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
