//! Who may use a key and how often, and which operations need a second person.

use super::algorithm::KeyType;
use super::approval::ApprovalOperation;
use super::ids::ModuleId;
use super::time::Period;
use super::wire::text_form;

/// The policy a key carries for life; its successors inherit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPolicy {
    /// The modules that may use the key.
    pub allowed_modules: Vec<ModuleId>,
    /// Whether every use needs an approval.
    pub requires_approval: bool,
    /// Uses a UTC day: signatures, verifications, encryptions and decryptions together.
    pub max_usage_per_day: u64,
}

/// The part of a policy that a caller chose; the rest comes from [`KeyDefaults`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessPolicyChoice {
    /// The modules that may use the key, exactly.
    pub allowed_modules: Option<Vec<ModuleId>>,
    /// Whether every use needs an approval.
    pub requires_approval: Option<bool>,
    /// Uses a UTC day.
    pub max_usage_per_day: Option<u64>,
}

impl AccessPolicyChoice {
    /// Whether nothing was chosen.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A policy with what was chosen in the place of what it had.
    pub fn over(self, policy: &AccessPolicy) -> AccessPolicy {
        AccessPolicy {
            allowed_modules: self
                .allowed_modules
                .unwrap_or_else(|| policy.allowed_modules.clone()),
            requires_approval: self.requires_approval.unwrap_or(policy.requires_approval),
            max_usage_per_day: self.max_usage_per_day.unwrap_or(policy.max_usage_per_day),
        }
    }
}

/// The largest daily limit: what every JSON reader keeps exactly (2^53 − 1).
pub const LARGEST_DAILY_LIMIT: u64 = 9_007_199_254_740_991;

/// What a new key gets where its maker says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDefaults {
    /// The modules that may use a key, beside the one that had it made.
    pub allowed_modules: Vec<ModuleId>,
    /// Uses a UTC day.
    pub max_usage_per_day: u64,
    /// How long a key of each type signs and encrypts.
    pub rotation_schedule: RotationSchedule,
    /// How long a replaced key stays in `pending_rotation`.
    pub rotation_grace_period: Period,
    /// How long the secret of a revoked key is kept, unless it is compromised.
    pub erase_after: Period,
}

/// How long a key of each type signs and encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationSchedule {
    /// RSA-2048
    pub rsa_2048: Period,
    /// Ed25519
    pub ed25519: Period,
    /// AES-256
    pub aes_256: Period,
}

impl RotationSchedule {
    /// The period of one key type.
    pub const fn period(&self, key_type: KeyType) -> Period {
        match key_type {
            KeyType::Rsa2048 => self.rsa_2048,
            KeyType::Ed25519 => self.ed25519,
            KeyType::Aes256 => self.aes_256,
        }
    }
}

impl KeyDefaults {
    /// The whole policy of a new key, from what its maker chose.
    pub fn complete(&self, choice: AccessPolicyChoice, creator: &ModuleId) -> AccessPolicy {
        let allowed_modules = choice.allowed_modules.unwrap_or_else(|| {
            let mut modules = self.allowed_modules.clone();
            if !modules.contains(creator) {
                modules.push(creator.clone());
            }
            modules
        });
        AccessPolicy {
            allowed_modules,
            requires_approval: choice.requires_approval.unwrap_or(false),
            max_usage_per_day: choice.max_usage_per_day.unwrap_or(self.max_usage_per_day),
        }
    }
}

/// A group of operations that can be made to need a second person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ApprovalGroup {
    /// Generation, rotation and revocation of keys.
    KeyLifecycle,
    /// Adding and removing of trust anchors.
    TrustAnchor,
}

impl ApprovalGroup {
    /// Every group.
    pub const ALL: [Self; 2] = [Self::KeyLifecycle, Self::TrustAnchor];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.as_str() == text)
    }

    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyLifecycle => "key_lifecycle",
            Self::TrustAnchor => "trust_anchor",
        }
    }
}

text_form!(ApprovalGroup, "one of key_lifecycle, trust_anchor");

/// Which operations need a second person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalPolicy {
    /// The groups that do.
    pub operations: Vec<ApprovalGroup>,
}

impl ApprovalPolicy {
    /// Whether the operation needs an approval. The use of a key needs one
    /// where the key's own policy says so, and that is not asked here.
    pub fn requires(&self, operation: ApprovalOperation) -> bool {
        match operation {
            ApprovalOperation::KeyGenerate
            | ApprovalOperation::KeyRotate
            | ApprovalOperation::KeyRotateEmergency
            | ApprovalOperation::KeyArchive
            | ApprovalOperation::KeyUpdate
            | ApprovalOperation::KeyRevoke
            | ApprovalOperation::KeyRestore => {
                self.operations.contains(&ApprovalGroup::KeyLifecycle)
            }
            ApprovalOperation::TrustAnchorAdd | ApprovalOperation::TrustAnchorRemove => {
                self.operations.contains(&ApprovalGroup::TrustAnchor)
            }
            ApprovalOperation::KeyUse => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> KeyDefaults {
        KeyDefaults {
            allowed_modules: vec!["M21".parse().expect("valid"), "M27".parse().expect("valid")],
            max_usage_per_day: 10_000,
            rotation_schedule: RotationSchedule {
                rsa_2048: Period::days(90),
                ed25519: Period::days(365),
                aes_256: Period::days(90),
            },
            rotation_grace_period: Period::days(7),
            erase_after: Period::days(7),
        }
    }

    #[test]
    fn the_default_policy_is_the_configured_modules_and_the_creator() {
        let creator = "M50".parse().expect("valid");
        let policy = defaults().complete(AccessPolicyChoice::default(), &creator);
        let names: Vec<&str> = policy
            .allowed_modules
            .iter()
            .map(ModuleId::as_str)
            .collect();
        assert_eq!(names, ["M21", "M27", "M50"]);
        assert!(!policy.requires_approval);
        assert_eq!(policy.max_usage_per_day, 10_000);
    }

    #[test]
    fn a_list_that_was_chosen_is_taken_exactly() {
        let choice = AccessPolicyChoice {
            allowed_modules: Some(vec!["M23".parse().expect("valid")]),
            ..AccessPolicyChoice::default()
        };
        let policy = defaults().complete(choice, &"M50".parse().expect("valid"));
        let names: Vec<&str> = policy
            .allowed_modules
            .iter()
            .map(ModuleId::as_str)
            .collect();
        assert_eq!(names, ["M23"]);
    }

    #[test]
    fn only_configured_groups_need_a_second_person() {
        let lifecycle = ApprovalPolicy {
            operations: vec![ApprovalGroup::KeyLifecycle],
        };
        assert!(lifecycle.requires(ApprovalOperation::KeyGenerate));
        assert!(lifecycle.requires(ApprovalOperation::KeyRevoke));
        assert!(!lifecycle.requires(ApprovalOperation::TrustAnchorAdd));
        let none = ApprovalPolicy { operations: vec![] };
        assert!(!none.requires(ApprovalOperation::KeyRotate));
    }
}
