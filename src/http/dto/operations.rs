//! What callers get of the service itself.

use std::collections::BTreeMap;

use crate::domain::algorithm::Algorithm;
use crate::domain::policy::ApprovalGroup;
use crate::domain::time::Period;
use crate::http::error::ErrorBody;
use crate::http::openapi::answer_object;
use crate::http::openapi::texts::{Alive, RotationScheduleObject};
use crate::service::{CheckStatus, HealthStatus};

answer_object! {
    /// `GET /kms/v1/health`
    HealthAnswer {
        /// How things stand.
        pub(crate) status: &'static str => HealthStatus,
        /// What was looked at.
        pub(crate) checks: Vec<CheckAnswer>,
        /// What every answer has that is not 2xx.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) error: Option<ErrorBody>,
    }
}

answer_object! {
    /// What was looked at, and how it went.
    CheckAnswer {
        /// What.
        pub(crate) name: &'static str => String,
        /// How things stand.
        pub(crate) status: &'static str => CheckStatus,
        /// In words.
        pub(crate) detail: String,
    }
}

answer_object! {
    /// `GET /health`
    LivenessAnswer {
        /// How things stand.
        pub(crate) status: &'static str => Alive,
        /// Always `kms`.
        pub(crate) service: &'static str => String,
        /// The version of the binary.
        pub(crate) version: &'static str => String,
    }
}

answer_object! {
    /// `GET /kms/v1/config`
    ConfigAnswer {
        /// How long a key of each type signs and encrypts.
        pub(crate) key_rotation_schedule: BTreeMap<&'static str, Period> => RotationScheduleObject,
        /// How long a replaced key verifies and decrypts.
        pub(crate) rotation_grace_period: Period,
        /// Every algorithm.
        pub(crate) allowed_algorithms: Vec<Algorithm>,
        /// Uses a UTC day, where a key's own policy says nothing.
        pub(crate) max_usage_per_day_default: u64,
        /// What needs a second person.
        pub(crate) dual_authorization_required_operations: Vec<ApprovalGroup>,
    }
}
