//! The service from outside, a module a promise, and the two suites that look
//! at its inside: the layering of the sources and the contract of HSM backends.

#[path = "../hsm_conformance.rs"]
mod hsm_conformance;
#[path = "../layering.rs"]
mod layering;

mod support;

mod approvals;
mod approvals_callers;
mod approvals_once;
mod archive;
mod backup;
mod batch;
mod bearer;
mod client;
mod configuration;
mod crash;
mod diagnose;
mod disk_faults;
mod disk_full;
mod disk_start;
mod durability;
mod encryption;
mod errors;
mod errors_bodies;
mod errors_fields;
mod errors_load;
mod headers;
mod health;
mod hostile_http;
mod isolation;
mod key_usage;
mod keys;
mod ledger;
mod ledger_audit;
mod ledger_start;
mod lifecycle;
mod lifecycle_races;
mod lifecycle_restore;
mod lifecycle_schedule;
mod lifecycle_steps;
mod lifecycle_update;
mod limits;
mod model;
mod pkcs11;
mod pkcs11_check;
mod pkcs11_faults;
mod pkcs11_hangs;
mod pkcs11_orphans;
mod pkcs11_proxy;
mod pkcs11_start;
mod policy;
mod production;
mod production_start;
mod production_tls;
mod rates;
mod receipts;
mod receipts_secrecy;
mod receipts_signatures;
mod rekey;
mod reload;
mod reload_address;
mod restore;
mod rsa_stock;
mod secrecy;
mod shutdown;
mod signals;
mod signing;
mod tenancy;
mod tls;
mod tokens;
mod trust_anchors;
