//! The trust anchors in force, read anew from the store when asked to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use crate::domain::ids::TrustAnchorId;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::TrustAnchor;
use crate::ports::data_plane::{DataPlane, Unavailable};
use crate::ports::material::{Material, MaterialFault, Standing};
use crate::ports::trust_plane::TrustPlane;

/// How often what is in force is compared with what is kept, at most, while
/// others keep changing it.
const MOST_ROUNDS: usize = 10;

/// Puts the anchors of the store in force.
pub(super) struct AnchorsInForce {
    data_plane: Arc<dyn DataPlane>,
    trust_plane: Arc<dyn TrustPlane>,
    has_failed: AtomicBool,
}

impl AnchorsInForce {
    pub(super) fn new(data_plane: Arc<dyn DataPlane>, trust_plane: Arc<dyn TrustPlane>) -> Self {
        Self {
            data_plane,
            trust_plane,
            has_failed: AtomicBool::new(false),
        }
    }

    /// Makes what is in force what is kept.
    ///
    /// An anchor that comes or goes between the reading and the putting in force
    /// would be undone by it, so it is read until two readings agree.
    ///
    /// # Errors
    /// [`Unavailable`], with what was in force still so.
    pub(super) async fn put_in_force(&self) -> Result<(), Unavailable> {
        let mut anchors = self.data_plane.all_trust_anchors().await?;
        for _ in 0..MOST_ROUNDS {
            self.trust_plane.replace(&anchors);
            let again = self.data_plane.all_trust_anchors().await?;
            if ids(&again) == ids(&anchors) {
                break;
            }
            anchors = again;
        }
        Ok(())
    }
}

fn ids(anchors: &[TrustAnchor]) -> Vec<TrustAnchorId> {
    let mut ids: Vec<_> = anchors.iter().map(|one| one.trust_anchor_id).collect();
    ids.sort_unstable();
    ids
}

#[async_trait]
impl Material for AnchorsInForce {
    fn name(&self) -> &'static str {
        "trust_anchors"
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    async fn reload(&self) -> Result<(), MaterialFault> {
        let outcome = self.put_in_force().await;
        self.has_failed.store(outcome.is_err(), Ordering::Relaxed);
        outcome.map_err(|away| MaterialFault {
            what: "the trust anchors cannot be read from the store".to_owned(),
            source: Some(Box::new(away)),
        })
    }

    fn standing(&self, _: Timestamp) -> Standing {
        if self.has_failed.load(Ordering::Relaxed) {
            Standing::NeedsCare(
                "the last reading failed; those that were in force still are".to_owned(),
            )
        } else {
            Standing::Good("in force as kept".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::adapters::data_plane::memory::MemoryDataPlane;
    use crate::adapters::ledger::LedgerSigner;
    use crate::domain::error::CertificateFault;
    use crate::domain::scope::{Environment, Plane, Scope};
    use crate::domain::trust_anchor::{AnchorType, CertificateFacts};
    use crate::ports::data_plane::{Change, Transaction};
    use crate::ports::trust_plane::Voucher;

    fn anchor(fingerprint: &str) -> TrustAnchor {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().expect("valid");
        TrustAnchor {
            trust_anchor_id: TrustAnchorId::generate(),
            scope: Scope {
                tenant_id: "acme".parse().expect("valid"),
                environment: Environment::Prod,
                plane: Plane::Tenant,
            },
            anchor_type: AnchorType::Root,
            certificate: CertificateFacts {
                der: Vec::new(),
                fingerprint: fingerprint.to_owned(),
                subject: String::new(),
                not_before: now,
                not_after: now,
            },
            added_at: now,
            added_by: "M32".parse().expect("valid"),
        }
    }

    fn begun_store() -> Arc<MemoryDataPlane> {
        let signer = LedgerSigner::from_seed(&[7; 32]).expect("a key");
        Arc::new(MemoryDataPlane::with_ledger(Arc::new(signer)))
    }

    /// Keeps an anchor, which in memory takes no waiting.
    fn keep(store: &MemoryDataPlane, anchor: TrustAnchor) {
        let mut kept = store.commit(Transaction {
            changes: vec![Change::InsertTrustAnchor(anchor)],
            ..Transaction::default()
        });
        let kept = kept.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(kept, Poll::Ready(Ok(()))));
    }

    /// A trust plane in which somebody takes an anchor in right before the first
    /// reading is put in force.
    struct Meddled {
        store: Arc<MemoryDataPlane>,
        comes: Mutex<Option<TrustAnchor>>,
        in_force: Mutex<Vec<TrustAnchorId>>,
    }

    impl TrustPlane for Meddled {
        fn inspect(
            &self,
            _: &[u8],
            _: AnchorType,
            _: Timestamp,
        ) -> Result<CertificateFacts, CertificateFault> {
            Err(CertificateFault::Malformed)
        }

        fn admit(&self, anchor: &TrustAnchor) {
            self.in_force.lock().unwrap().push(anchor.trust_anchor_id);
        }

        fn dismiss(&self, _: TrustAnchorId) {}

        fn replace(&self, anchors: &[TrustAnchor]) {
            if let Some(comes) = self.comes.lock().unwrap().take() {
                keep(&self.store, comes.clone());
                self.admit(&comes);
            }
            *self.in_force.lock().unwrap() = ids(anchors);
        }

        fn vouchers(&self, _: &[u8], _: &Scope, _: Timestamp) -> Vec<Voucher> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn an_anchor_that_comes_while_they_are_read_stays_in_force() {
        let store = begun_store();
        let (there, comes) = (anchor("aa"), anchor("bb"));
        keep(&store, there.clone());
        let trust_plane = Arc::new(Meddled {
            store: Arc::clone(&store),
            comes: Mutex::new(Some(comes.clone())),
            in_force: Mutex::default(),
        });
        let anchors = AnchorsInForce::new(store, Arc::clone(&trust_plane) as _);
        anchors.put_in_force().await.expect("available");
        let mut in_force = trust_plane.in_force.lock().unwrap().clone();
        in_force.sort_unstable();
        assert_eq!(in_force, ids(&[there, comes]));
    }

    #[tokio::test]
    async fn a_store_that_is_away_leaves_what_is_in_force() {
        let store = begun_store();
        store.close().await;
        let trust_plane = Arc::new(Meddled {
            store: Arc::clone(&store),
            comes: Mutex::default(),
            in_force: Mutex::new(vec![TrustAnchorId::generate()]),
        });
        let anchors = AnchorsInForce::new(store, Arc::clone(&trust_plane) as _);
        assert!(anchors.reload().await.is_err());
        assert_eq!(trust_plane.in_force.lock().unwrap().len(), 1);
        let now = "2026-06-01T00:00:00Z".parse().expect("valid");
        assert!(matches!(anchors.standing(now), Standing::NeedsCare(_)));
    }
}
