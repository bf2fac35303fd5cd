//! Identities and approvals, as the configuration wants them checked.

use std::sync::Arc;

use super::StartError;
use crate::adapters::iam::{
    ApprovalCheck, ApprovalRules, CallerRules, KeySetOrigin, KeySetRole, KeySetSource, PlatformIam,
    TokenRules,
};
use crate::config::{ApprovalMode, Config, KeySetLocation};
use crate::ports::clock::Clock;
use crate::ports::material::{Material, MaterialFault};
use crate::telemetry::metrics::Metrics;

/// Who identifies callers and verifies approvals, and the key sets that it stands
/// on, for whoever renews them.
pub(super) async fn identities(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<(PlatformIam, Vec<Arc<dyn Material>>), StartError> {
    let (auth, approvals) = (&config.auth, &config.approvals);
    let callers_keys = key_set(KeySetRole::Callers, auth.jwks.as_ref(), clock, metrics).await?;
    let approvers_keys = match approvals.mode {
        ApprovalMode::Development => None,
        ApprovalMode::Signed => {
            let location = approvals.jwks.as_ref();
            key_set(KeySetRole::Approvers, location, clock, metrics).await?
        }
    };
    let material = [&callers_keys, &approvers_keys]
        .into_iter()
        .flatten()
        .map(|keys| Arc::clone(keys) as Arc<dyn Material>)
        .collect();
    let mode = match (approvals.mode, approvers_keys) {
        (ApprovalMode::Development, _) => ApprovalCheck::Development,
        (ApprovalMode::Signed, Some(keys)) => ApprovalCheck::Signed(keys),
        // The configuration's own rules say so first.
        (ApprovalMode::Signed, None) => {
            return Err(StartError::KeySet {
                setting: KeySetRole::Approvers.setting(),
                source: MaterialFault::new("signed approvals need the approvers' keys"),
            });
        }
    };
    let callers = CallerRules {
        tokens: callers_keys.map(|keys| TokenRules {
            keys,
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
        }),
        require_token: auth.require_jwt,
        believe_unidentified: config.believes_unidentified_callers(),
    };
    let approvals = ApprovalRules {
        mode,
        quorum: approvals.quorum.get(),
    };
    let iam = PlatformIam::new(callers, approvals, Arc::clone(clock));
    Ok((iam, material))
}

/// A key set, read for the first time.
async fn key_set(
    role: KeySetRole,
    location: Option<&KeySetLocation>,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<KeySetSource>>, StartError> {
    let origin = match location {
        None => return Ok(None),
        Some(KeySetLocation::File(path)) => KeySetOrigin::File(path.clone()),
        Some(KeySetLocation::Address(address)) => KeySetOrigin::Address(address.clone()),
    };
    let source = KeySetSource::new(role, origin, Arc::clone(clock), Arc::clone(metrics));
    source.start().await.map_err(|source| StartError::KeySet {
        setting: role.setting(),
        source,
    })?;
    Ok(Some(Arc::new(source)))
}
