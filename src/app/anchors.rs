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
