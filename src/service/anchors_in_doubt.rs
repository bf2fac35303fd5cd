//! Keeping what is in force the same as what is kept, when a change of the trust
//! anchors ends in the middle.
//!
//! A commit whose request was given up, or that the store did not answer in time,
//! may or may not be kept. Nobody is left to draw the consequence then, so the
//! anchor is noted here, and the next probe that finds the store well asks it.

use super::KmsService;
use super::doubts::Doubts;
use crate::domain::ids::TrustAnchorId;
use crate::domain::scope::Scope;
use crate::ports::data_plane::{DataPlane, Unavailable};
use crate::ports::trust_plane::TrustPlane;

/// An anchor of which nobody knows whether it is kept.
pub(super) type Doubt = (Scope, TrustAnchorId);

fn note(in_doubt: &Doubts<Doubt>, doubt: Doubt) {
    if let Err(doubt) = in_doubt.note(doubt) {
        tracing::error!(
            trust_anchor_id = %doubt.1,
            "too many unfinished changes of trust anchors: the next start settles this one"
        );
    }
}

/// A change of an anchor that is being kept. Dropped before it is settled, by
/// whatever cut it short, it leaves the anchor in doubt.
pub(super) struct UnsettledChange<'a> {
    in_doubt: &'a Doubts<Doubt>,
    trust_plane: &'a dyn TrustPlane,
    is_removal: bool,
    doubt: Option<Doubt>,
}

impl UnsettledChange<'_> {
    /// The store has answered, and the anchor is in force or not accordingly.
    pub(super) fn settled(mut self) {
        self.doubt = None;
    }
}

impl Drop for UnsettledChange<'_> {
    fn drop(&mut self) {
        let Some(doubt) = self.doubt.take() else {
            return;
        };
        // Whoever may remove it has asked to: until the store has told, it vouches
        // for nobody.
        if self.is_removal {
            self.trust_plane.dismiss(doubt.1);
        }
        note(self.in_doubt, doubt);
    }
}

/// Anchors whose doubts were noted before a probe began.
pub(super) struct SettlingRound<'a> {
    service: &'a KmsService,
    doubts: Vec<Doubt>,
}

impl KmsService {
    /// To be held while a change of an anchor is being kept.
    pub(super) fn unsettled_change(
        &self,
        scope: &Scope,
        trust_anchor_id: TrustAnchorId,
        is_removal: bool,
    ) -> UnsettledChange<'_> {
        UnsettledChange {
            in_doubt: &self.anchors_in_doubt,
            trust_plane: self.ports.trust_plane.as_ref(),
            is_removal,
            doubt: Some((scope.clone(), trust_anchor_id)),
        }
    }

    /// Takes up the doubts there are now. What caused them was decided once a
    /// later write has been answered (see [`DataPlane::probe_write`]).
    pub(super) fn begin_settling(&self) -> SettlingRound<'_> {
        SettlingRound {
            service: self,
            doubts: self.anchors_in_doubt.take(),
        }
    }
}

impl SettlingRound<'_> {
    /// Asks the store about each, which must have answered a write since.
    pub(super) async fn settle(mut self) {
        let ports = &self.service.ports;
        while let Some((scope, id)) = self.doubts.last() {
            let (store, trust_plane) = (ports.data_plane.as_ref(), ports.trust_plane.as_ref());
            match put_in_force_if_kept(store, trust_plane, scope, *id).await {
                Ok(is_kept) => {
                    tracing::info!(trust_anchor_id = %id, is_kept, "an unfinished change is settled");
                    self.doubts.pop();
                }
                // The rest is for the next round.
                Err(_) => return,
            }
        }
    }
}

impl Drop for SettlingRound<'_> {
    fn drop(&mut self) {
        for doubt in self.doubts.drain(..) {
            note(&self.service.anchors_in_doubt, doubt);
        }
    }
}

/// Puts an anchor in force if the store has it, and takes it out of force if not.
///
/// # Errors
/// [`Unavailable`]; what is in force may be wrong then.
async fn put_in_force_if_kept(
    data_plane: &dyn DataPlane,
    trust_plane: &dyn TrustPlane,
    scope: &Scope,
    id: TrustAnchorId,
) -> Result<bool, Unavailable> {
    if let Some(anchor) = data_plane.find_trust_anchor(scope, id).await? {
        trust_plane.admit(&anchor);
    }
    dismiss_if_gone(data_plane, trust_plane, scope, id).await
}

/// To be called after an anchor was admitted, on the word of the store a moment
/// before: if it was removed in between, it was dismissed too early and must not
/// stay. Answers whether it is kept.
///
/// # Errors
/// [`Unavailable`]; what is in force may be wrong then.
pub(super) async fn dismiss_if_gone(
    data_plane: &dyn DataPlane,
    trust_plane: &dyn TrustPlane,
    scope: &Scope,
    id: TrustAnchorId,
) -> Result<bool, Unavailable> {
    let is_kept = data_plane.find_trust_anchor(scope, id).await?.is_some();
    if !is_kept {
        trust_plane.dismiss(id);
    }
    Ok(is_kept)
}
