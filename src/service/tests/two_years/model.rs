//! What ought to be: the state of each key and when it changes by itself, in as few
//! words as possible.

use crate::domain::error::ErrorCode;
use crate::domain::ids::KeyId;
use crate::domain::time::{Period, Timestamp};

pub(super) const GRACE: Period = Period::days(7);
pub(super) const RESPITE: Period = Period::days(7);

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Pending { until: Timestamp },
    Archived,
    Waiting { until: Timestamp },
    Gone,
}

/// What is asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Sign,
    Verify,
    Rotate,
    RotateInEmergency,
    Archive,
    Retire,
    Compromise,
    Restore,
    Rename,
    Limit,
}

impl Request {
    pub(super) const ALL: [Self; 10] = [
        Self::Sign,
        Self::Verify,
        Self::Rotate,
        Self::RotateInEmergency,
        Self::Archive,
        Self::Retire,
        Self::Compromise,
        Self::Restore,
        Self::Rename,
        Self::Limit,
    ];
}

/// A key of the model.
#[derive(Clone, Debug)]
pub(super) struct ModelKey {
    pub(super) key_id: KeyId,
    pub(super) line_id: KeyId,
    pub(super) rotations: u32,
    pub(super) state: State,
    pub(super) alias: Option<String>,
    pub(super) limit: u64,
    pub(super) period: Period,
    pub(super) made_at: Timestamp,
    pub(super) due_at: Timestamp,
}

impl ModelKey {
    pub(super) fn end(&self) -> Timestamp {
        self.made_at.plus(self.period)
    }

    /// What the answer is, and where the key stands after it.
    pub(super) fn answer(&self, request: Request, now: Timestamp) -> Result<State, ErrorCode> {
        use Request as Ask;
        use State::{Active, Archived, Gone, Pending, Waiting};
        let inactive = Err(ErrorCode::KeyInactive);
        match (self.state, request) {
            (Waiting { until }, Ask::Restore) if now < until => Ok(Archived),
            (Waiting { .. }, Ask::Compromise) => Ok(Gone),
            (Waiting { .. } | Gone, _) => Err(ErrorCode::KeyRevoked),
            (_, Ask::Restore) => inactive,
            (_, Ask::Compromise) => Ok(Gone),
            (_, Ask::Retire) => Ok(Waiting {
                until: now.plus(RESPITE),
            }),
            (state, Ask::Verify | Ask::Limit) => Ok(state),
            (Active, Ask::Sign) if now >= self.end() => inactive,
            (Active, Ask::Sign | Ask::Rename) => Ok(Active),
            (Active, Ask::Rotate) => Ok(Pending {
                until: now.plus(GRACE),
            }),
            (Active, Ask::RotateInEmergency) | (Active | Pending { .. }, Ask::Archive) => {
                Ok(Archived)
            }
            _ => inactive,
        }
    }

    /// Where the key stands once all that is due by now is done; the instant is when
    /// that happens.
    pub(super) fn by_itself(&self, now: Timestamp) -> State {
        match self.state {
            State::Active if self.due_at <= now => State::Pending {
                until: now.plus(GRACE),
            },
            State::Pending { until } if until <= now => State::Archived,
            State::Waiting { until } if until <= now => State::Gone,
            state => state,
        }
    }
}
