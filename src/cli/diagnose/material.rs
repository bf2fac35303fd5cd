//! What the operator laid out: certificates, authorities, revocation lists and key sets,
//! read as a start reads them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use super::report::Report;
use crate::adapters::clock::SystemClock;
use crate::adapters::iam::{KeySetOrigin, KeySetRole, KeySetSource};
use crate::cli::fault::with_causes;
use crate::config::{ApprovalMode, Config, KeySetLocation};
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::material::{Material, Standing};
use crate::telemetry::metrics::Metrics;
use crate::tls::{TlsFiles, TlsMaterial};

/// What a file of the operator's needs that is not right.
const MEND_FILE: &str = "put the right file in its place; a running service takes it by itself";

/// Looks at all of it.
pub(super) fn look(config: &Config, now: Timestamp, report: &mut Report) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // Nobody reads them: what sets a gauge is asked for its standing.
    let Ok(metrics) = Metrics::new(env!("CARGO_PKG_VERSION")).map(Arc::new) else {
        return;
    };
    tls(config, now, (&clock, &metrics), report);
    let approvers = match config.approvals.mode {
        ApprovalMode::Signed => config.approvals.jwks.as_ref(),
        ApprovalMode::Development => None,
    };
    for (role, location) in [
        (KeySetRole::Callers, config.auth.jwks.as_ref()),
        (KeySetRole::Approvers, approvers),
    ] {
        if let Some(location) = location {
            key_set(role, location, now, (&clock, &metrics), report);
        }
    }
}

type Surroundings<'a> = (&'a Arc<dyn Clock>, &'a Arc<Metrics>);

fn tls(config: &Config, now: Timestamp, (clock, metrics): Surroundings<'_>, report: &mut Report) {
    let tls = &config.tls;
    // The configuration's rules let only all three pass, or none.
    let (Some(certificate), Some(private_key), Some(client_ca)) =
        (&tls.certificate, &tls.private_key, &tls.client_ca)
    else {
        report.good("tls", "is not configured: the API speaks plain HTTP");
        return;
    };
    let files = TlsFiles {
        certificate: certificate.clone(),
        private_key: private_key.clone(),
        client_ca: client_ca.clone(),
        crl: tls.crl.clone(),
    };
    if is_readable_by_all(private_key) {
        report.note(
            "tls",
            format_args!(
                "every user of this machine can read the private key {}: chmod 600, unless a \
                 container keeps others away",
                private_key.display()
            ),
        );
    }
    match TlsMaterial::load(files, clock, metrics) {
        Ok(material) => {
            for unit in material.units() {
                standing(unit.as_ref(), now, report);
            }
        }
        Err(faults) => {
            for fault in faults {
                report.bad("tls", with_causes(&fault), MEND_FILE);
            }
        }
    }
    if tls.crl.is_none() {
        report.note(
            "crl",
            "tls.crl is not set, so no certificate counts as revoked",
        );
    }
}

fn is_readable_by_all(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

fn key_set(
    role: KeySetRole,
    location: &KeySetLocation,
    now: Timestamp,
    (clock, metrics): Surroundings<'_>,
    report: &mut Report,
) {
    let (origin, remedy) = match location {
        KeySetLocation::File(path) => (KeySetOrigin::File(path.clone()), MEND_FILE),
        KeySetLocation::Address(address) => (
            KeySetOrigin::Address(address.clone()),
            "see that the address answers from this machine; a service runs without it, answers \
             503 to whatever needs it, and recovers when it comes",
        ),
    };
    let source = KeySetSource::new(role, origin, Arc::clone(clock), Arc::clone(metrics));
    let read = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(source.reload()));
    match read {
        Ok(Ok(())) => standing(&source, now, report),
        Ok(Err(fault)) => report.bad(source.name(), with_causes(&fault), remedy),
        Err(error) => report.bad(
            source.name(),
            error,
            "let this user have more threads and files",
        ),
    }
}

fn standing(material: &dyn Material, now: Timestamp, report: &mut Report) {
    match material.standing(now) {
        Standing::Good(what) => report.good(material.name(), what),
        Standing::NeedsCare(what) => report.note(material.name(), what),
        Standing::Unusable(what) => report.bad(material.name(), what, MEND_FILE),
    }
}
