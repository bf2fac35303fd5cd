//! Whoever keeps the key-encryption keys: takes a new one, sees every secret sealed
//! under it, and lets the old one go. One task, so that its steps follow each other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::at_start::KekIds;
use super::files::KekFiles;
use super::material::{Ask, Board, KekMaterial};
use super::resealing::{Passed, Progress};
use super::{KEK_PIN, NEXT_KEK_PIN};
use crate::adapters::hsm::software::SoftwareHsm;
use crate::adapters::hsm::software::kek::KeyEncryptionKey;
use crate::ports::data_plane::{DataPlane, Unavailable};
use crate::ports::material::{Material, MaterialFault};
use crate::telemetry::metrics::Metrics;

/// How soon something is tried again that failed, or that others hold up.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How soon secrets that do not open are tried again, and files that cannot be moved.
const RETRY_STUCK_AFTER: Duration = Duration::from_secs(60);

/// How soon it is asked again whether keys that were made have been stored.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What the keeper works with.
pub(in crate::app) struct KekKeeperPorts {
    pub(in crate::app) hsm: Arc<SoftwareHsm>,
    pub(in crate::app) data_plane: Arc<dyn DataPlane>,
    pub(in crate::app) metrics: Arc<Metrics>,
    pub(in crate::app) files: KekFiles,
    /// How long a request may go on with a secret as it was when it read it.
    pub(in crate::app) longest_request: Duration,
}

/// Keeps the key-encryption keys.
pub(in crate::app) struct KekKeeper {
    pub(super) ports: KekKeeperPorts,
    /// The id of the key that the store says is in force.
    pub(super) in_force: String,
    pub(super) stage: Stage,
    pub(super) progress: Progress,
    pub(super) board: Arc<Board>,
    /// When the files are looked at again, where something failed.
    retry_at: Option<Instant>,
    asked: mpsc::Receiver<Ask>,
}

/// How far a change of the key has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is none: one key seals and opens.
    Settled,
    /// Secrets are sealed anew under the key of this id.
    Resealing { to: String },
    /// None is left, and the old key still opens until then.
    Retiring { until: Instant },
}

impl KekKeeper {
    /// A keeper from where the start found things, and what asks it. Puts files in
    /// their places and looks at the next key; nothing of that keeps from serving.
    pub(in crate::app) async fn start(
        ports: KekKeeperPorts,
        keks: KekIds,
    ) -> (Self, Arc<dyn Material>) {
        let board = Arc::new(Board::default());
        let (sender, asked) = mpsc::channel(4);
        let material = Arc::new(KekMaterial {
            files: ports.files.clone(),
            board: Arc::clone(&board),
            keeper: sender,
        });
        let stage = match keks.to {
            Some(to) => Stage::Resealing { to },
            None => Stage::Settled,
        };
        board.write(|notes| notes.in_force.clone_from(&keks.in_force));
        let mut keeper = Self {
            ports,
            in_force: keks.in_force,
            stage,
            progress: Progress::default(),
            board,
            retry_at: None,
            asked,
        };
        if let Stage::Resealing { to } = &keeper.stage {
            tracing::info!(from = keeper.in_force, to, "sealing secrets anew goes on");
            keeper.note_progress();
        } else if let Err(fault) = keeper.look_at_files().await {
            log_not_taken(&fault);
        }
        (keeper, material)
    }

    /// Keeps the keys; never returns. To be dropped at any moment: whatever it was
    /// doing, the next start goes on from there.
    pub(in crate::app) async fn keep(mut self) {
        loop {
            match &self.stage {
                Stage::Settled => match self.retry_at {
                    None => self.rest(None).await,
                    Some(at) => {
                        self.rest(Some(at)).await;
                        if Instant::now() >= at {
                            self.look_again().await;
                        }
                    }
                },
                Stage::Retiring { until } => {
                    let until = *until;
                    self.rest(Some(until)).await;
                    if Instant::now() >= until {
                        self.forget_old().await;
                    }
                }
                Stage::Resealing { to } => {
                    let to = to.clone();
                    self.go_on_resealing(&to).await;
                }
            }
        }
    }

    /// Makes one pass over all secrets, and finishes where it finds none to seal.
    async fn go_on_resealing(&mut self, to: &str) {
        let wait = match self.pass().await {
            Ok(Passed::NoneLeft) => match self.finish(to).await {
                Ok(true) => return,
                Ok(false) => {
                    self.hindered("whoever reads the store, such as a backup, holds up the end");
                    RETRY_AFTER
                }
                Err(away) => self.away(&away),
            },
            Ok(Passed::SomeSealed) => return,
            Ok(Passed::Unsettled) => ASK_AGAIN_AFTER,
            Ok(Passed::Stuck) => RETRY_STUCK_AFTER,
            Err(away) => self.away(&away),
        };
        self.rest(Some(Instant::now() + wait)).await;
    }

    fn away(&mut self, away: &Unavailable) -> Duration {
        tracing::warn!(
            error = away as &dyn std::error::Error,
            "sealing secrets anew is held up"
        );
        self.hindered("the store is unavailable");
        RETRY_AFTER
    }

    /// Every secret is sealed anew: the store says so, and the files follow. `false`
    /// while something of the old may still be on the disk.
    async fn finish(&mut self, to: &str) -> Result<bool, Unavailable> {
        let data_plane = &self.ports.data_plane;
        if !data_plane.wipe_replaced().await? {
            return Ok(false);
        }
        let (from, to) = (self.in_force.as_bytes(), to.as_bytes());
        if data_plane.move_pin(KEK_PIN, from, to).await? != to {
            return Err(Unavailable(
                "the store names another key-encryption key as the one in force".into(),
            ));
        }
        let to = String::from_utf8_lossy(to).into_owned();
        tracing::warn!(
            from = self.in_force,
            to,
            "every secret is sealed under the new key-encryption key; back it up. The old one \
             opens only what is in backups from before"
        );
        self.in_force.clone_from(&to);
        self.stage = Stage::Retiring {
            until: Instant::now() + self.ports.longest_request,
        };
        self.board.write(|notes| {
            notes.in_force = to;
            notes.resealing = None;
        });
        if let Err(fault) = self.put_files_in_place() {
            tracing::error!(
                error = &fault as &dyn std::error::Error,
                "the files of the key-encryption keys are not in their places"
            );
        }
        Ok(true)
    }

    /// The same, when nobody has asked: says what is new only.
    async fn look_again(&mut self) {
        let before = self.board.read();
        if let Err(fault) = self.look_at_files().await
            && ![before.files, before.next].contains(&Some(fault.what.clone()))
        {
            log_not_taken(&fault);
        }
    }

    async fn forget_old(&mut self) {
        self.ports.hsm.forget_other_keks();
        self.stage = Stage::Settled;
        tracing::info!("the old key-encryption key is forgotten");
        // One that was laid down meanwhile has waited for this.
        if let Err(fault) = self.look_at_files().await {
            log_not_taken(&fault);
        }
    }

    /// Looks at the files: takes a next key, if there is one and its turn has come.
    ///
    /// # Errors
    /// [`MaterialFault`]; what was in force stays in force.
    async fn look_at_files(&mut self) -> Result<(), MaterialFault> {
        self.retry_at = None;
        let looked = self.take_next().await;
        let why = looked.as_ref().err().map(|fault| fault.what.clone());
        self.board.write(|notes| notes.next = why);
        let put = match &self.stage {
            Stage::Resealing { .. } => Ok(()),
            Stage::Settled | Stage::Retiring { .. } => self.put_files_in_place(),
        };
        looked.and(put)
    }

    async fn take_next(&mut self) -> Result<(), MaterialFault> {
        let files = &self.ports.files;
        let file = files.next().display().to_string();
        let next = files.load_next().map_err(|error| MaterialFault {
            what: format!("{file}, the next key-encryption key, cannot be used"),
            source: Some(Box::new(error)),
        })?;
        let Some(next) = next else {
            return Ok(());
        };
        match &self.stage {
            Stage::Resealing { to } if *to == next.id() => Ok(()),
            Stage::Resealing { to } => Err(MaterialFault::new(format!(
                "{file} holds another key-encryption key ({}) than the one that secrets are being \
                 sealed under ({to}): put that one back, and lay this one down once it is done",
                next.id()
            ))),
            Stage::Retiring { .. } if next.id() != self.in_force => Ok(()),
            Stage::Settled if next.id() != self.in_force => self.begin(next).await,
            Stage::Settled | Stage::Retiring { .. } => match files.load() {
                Ok(Some(kek)) if kek.id() == self.in_force => Err(MaterialFault::new(format!(
                    "{file} holds the key-encryption key that is in force already: take it away",
                ))),
                // It is about to be put in its place.
                _ => Ok(()),
            },
        }
    }

    /// Lets a key seal from now on.
    async fn begin(&mut self, next: KeyEncryptionKey) -> Result<(), MaterialFault> {
        self.ports.files.make_next_durable();
        let to = next.id();
        let (from, pin) = (self.in_force.as_bytes(), to.as_bytes());
        let pinned = self
            .ports
            .data_plane
            .move_pin(NEXT_KEK_PIN, from, pin)
            .await;
        match pinned {
            Ok(pinned) if pinned == pin => {}
            Ok(_) => {
                return Err(MaterialFault::new(
                    "the store knows of another change of the key-encryption key",
                ));
            }
            Err(away) => {
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                return Err(MaterialFault {
                    what: "the store did not take the next key-encryption key; it is tried again"
                        .to_owned(),
                    source: Some(Box::new(away)),
                });
            }
        }
        self.ports.hsm.seal_with(next);
        tracing::warn!(
            from = self.in_force,
            to,
            "a new key-encryption key seals; every secret is sealed anew"
        );
        self.stage = Stage::Resealing { to };
        self.progress = Progress::default();
        self.note_progress();
        Ok(())
    }

    fn put_files_in_place(&mut self) -> Result<(), MaterialFault> {
        let put = self.ports.files.put_in_place(&self.in_force);
        let why = put.as_ref().err().map(|fault| fault.what.clone());
        self.board.write(|notes| notes.files = why);
        if put.is_err() {
            self.retry_at = Some(Instant::now() + RETRY_STUCK_AFTER);
        }
        put
    }

    /// Waits, and answers whoever asks meanwhile; comes back after an answer too.
    async fn rest(&mut self, until: Option<Instant>) {
        let time = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(answer) = self.asked.recv() => self.answer(answer).await,
            () = time => {}
        }
    }

    /// Answers whoever has asked by now.
    pub(super) async fn answer_all(&mut self) {
        while let Ok(answer) = self.asked.try_recv() {
            self.answer(answer).await;
        }
    }

    async fn answer(&mut self, answer: Ask) {
        // Whoever no longer waits needs no answer.
        let _ = answer.send(self.look_at_files().await);
    }
}

fn log_not_taken(fault: &MaterialFault) {
    tracing::error!(
        error = fault as &dyn std::error::Error,
        "the next key-encryption key is not taken, or a file is not in its place"
    );
}
