//! The composition root: from a configuration to a service that listens. The
//! only place that sees every room.

mod anchors;
mod background;
mod disk_space;
mod hsm;
mod identities;
pub(crate) mod kek;
mod known_checkpoint;
mod ledger_key;
mod reload;
mod start_error;
mod tls_front;

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) use self::known_checkpoint::CHECKPOINT_FILE;
pub(crate) use self::ledger_key::{LEDGER_KEY_FILE, NEXT_LEDGER_KEY_FILE};
pub use self::reload::ReloadHandle;
pub use self::start_error::StartError;

use self::anchors::AnchorsInForce;
use self::background::{
    Phase, keep_keks, keep_reconciled, keep_scheduled, keep_written_down, reached, spawn_prober,
};
use self::disk_space::DiskSpaceWatch;
use self::hsm::Ground;
use self::identities::identities;
use self::kek::{KekFiles, KekKeeper};
use self::known_checkpoint::KnownCheckpoint;
use self::ledger_key::begin_ledger;
use self::reload::{FirstLook, Keeper};
use self::tls_front::{TlsFront, load_material};
use crate::adapters::backlog::Backlog;
use crate::adapters::clock::SystemClock;
use crate::adapters::data_plane::memory::MemoryDataPlane;
use crate::adapters::data_plane::sqlite::{SqliteDataPlane, SqliteOptions};
use crate::adapters::hsm::software::SoftwareHsm;
use crate::adapters::trust_plane::X509TrustPlane;
use crate::config::{Config, CorsOrigins, KeySetLocation, Source, StoreUrl};
use crate::domain::policy::{ApprovalPolicy, KeyDefaults};
use crate::http::{HttpLimits, HttpParts, HttpState, api_router, operations_router, server};
use crate::ports::clock::Clock;
use crate::ports::data_plane::DataPlane;
use crate::ports::material::Material;
use crate::ports::trust_plane::TrustPlane;
use crate::service::{KmsService, Ports, ServicePolicy};
use crate::telemetry::metrics::Metrics;
use crate::tls::{Acceptor, TlsMaterial};

/// A service that listens and has not begun to answer.
pub struct App {
    service: Arc<KmsService>,
    data_plane: Arc<dyn DataPlane>,
    state: HttpState,
    api: TcpListener,
    handshake: Arc<dyn server::Handshake>,
    operations: Option<TcpListener>,
    shutdown_grace: Duration,
    material: Vec<Arc<dyn Material>>,
    reload: ReloadHandle,
    asked: watch::Receiver<u64>,
    first_look: FirstLook,
    known_checkpoint: Option<Arc<KnownCheckpoint>>,
    kek_keeper: Option<KekKeeper>,
    software_hsm: Option<Arc<SoftwareHsm>>,
    _disk_space: DiskSpaceWatch,
    when_serving: Option<Box<dyn FnOnce() + Send>>,
}

impl App {
    /// Builds everything and takes the listeners.
    ///
    /// # Errors
    /// [`StartError`], with how to mend it where the operator can.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_with(config, None).await
    }

    /// The same, with a configuration that was read from `source` and is read again
    /// from there where only that can renew something.
    ///
    /// # Errors
    /// As for [`App::start`].
    pub async fn start_from(config: &Config, source: Source) -> Result<Self, StartError> {
        Self::start_with(config, Some(Arc::new(source))).await
    }

    async fn start_with(config: &Config, source: Option<Arc<Source>>) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"))?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let first_look = FirstLook::at(renewable_files(config));
        // Before anything is made that a failed start would leave behind.
        let tls = load_material(&config.tls, &clock, &metrics)?;
        make_data_dir(&config.data_dir)?;
        let backlog = Backlog::default();
        let data_plane = open_store(config, &metrics, &backlog)?;
        let backends = hsm::backends(Ground {
            config,
            source,
            data_plane: &data_plane,
            clock: &clock,
            metrics: &metrics,
            backlog: &backlog,
        })
        .await?;
        let ledger_key = begin_ledger(&config.data_dir, &data_plane).await?;
        let (iam, keys) = identities(config, &clock, &metrics).await?;
        let trust_plane: Arc<dyn TrustPlane> = Arc::new(X509TrustPlane::new());
        let anchors = AnchorsInForce::new(Arc::clone(&data_plane), Arc::clone(&trust_plane));
        anchors.put_in_force().await?;
        let mut material: Vec<Arc<dyn Material>> = tls
            .iter()
            .flat_map(TlsMaterial::units)
            .chain(keys)
            .chain(backends.material)
            .collect();
        let handshake: Arc<dyn server::Handshake> = match tls {
            None => Arc::new(server::Plain),
            Some(tls) => Arc::new(TlsFront(Acceptor::new(
                tls,
                Arc::clone(&trust_plane),
                Arc::clone(&clock),
                Arc::clone(&metrics),
            ))),
        };
        let ports = Ports {
            hsm: backends.hsm,
            data_plane: Arc::clone(&data_plane),
            ledger: ledger_key.signer(),
            iam: Arc::new(iam),
            trust_plane,
            clock,
            material: material.clone(),
        };
        // Read anew with the rest; the health report has checks of its own for them.
        material.push(Arc::new(anchors));
        material.push(Arc::new(ledger_key));
        let service = KmsService::new(ports, service_policy(config), Arc::clone(&metrics));
        let service = Arc::new(service);
        let reload = ReloadHandle::new();
        let known_checkpoint = KnownCheckpoint::require(config, &service).await?;
        let server = &config.server;
        let api = listen("server.listen", server.listen).await?;
        let operations = match server.ops_listen {
            Some(address) => Some(listen("server.ops_listen", address).await?),
            None => None,
        };
        let disk_space = DiskSpaceWatch::begin(config, Arc::clone(&metrics));
        let state = HttpState::from(HttpParts {
            service: Arc::clone(&service),
            metrics,
            has_docs: config.environment.is_development(),
            limits: HttpLimits {
                max_body_bytes: server.max_body_bytes.get(),
                request_timeout: server.request_timeout.as_duration(),
                max_in_flight: server.max_in_flight.get(),
                rates: config.limits.rates,
                cors_origins: match &server.cors_origins {
                    CorsOrigins::Any => vec!["*".to_owned()],
                    CorsOrigins::Only(origins) => origins.clone(),
                },
            },
        });
        Ok(Self {
            service,
            data_plane,
            state,
            api,
            handshake,
            operations,
            shutdown_grace: server.shutdown_grace.as_duration(),
            material,
            asked: reload.listen(),
            reload,
            first_look,
            known_checkpoint: known_checkpoint.map(Arc::new),
            kek_keeper: backends.kek_keeper,
            software_hsm: backends.software,
            _disk_space: disk_space,
            when_serving: None,
        })
    }

    /// Has this called once the service answers, with whatever it then has to say: it may
    /// wait, unready, for what it stands on.
    pub fn when_serving(&mut self, tell: impl FnOnce() + Send + 'static) {
        self.when_serving = Some(Box::new(tell));
    }

    /// With what everything is read again that can be while running.
    pub fn reload_handle(&self) -> ReloadHandle {
        self.reload.clone()
    }

    /// Where the API listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn api_address(&self) -> io::Result<SocketAddr> {
        self.api.local_addr()
    }

    /// Where the operations listener listens, if there is one.
    ///
    /// # Errors
    /// The operating system's.
    pub fn operations_address(&self) -> io::Result<Option<SocketAddr>> {
        self.operations
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()
    }

    /// Serves until `stop` completes; then readiness fails at once, what is in
    /// flight finishes within the grace, and the store is closed last.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        // Before the first answer, so that whoever waits for the port finds the
        // service ready, if it is. A signal does not wait for it.
        let stopped_early = tokio::select! {
            _ = self.service.probe_health() => false,
            () = &mut stop => true,
        };
        let (stopping, stopped) = watch::channel(Phase::Serving);
        if let Some(hsm) = &self.software_hsm {
            hsm.begin_stock(Arc::clone(&self.state.metrics));
        }
        let prober = spawn_prober(Arc::clone(&self.service), stopped.clone());
        let reconciler = {
            let until = reached(stopped.clone(), Phase::Draining);
            let asked = self.asked.clone();
            tokio::spawn(keep_reconciled(Arc::clone(&self.service), asked, until))
        };
        let scheduler = {
            let until = reached(stopped.clone(), Phase::Draining);
            tokio::spawn(keep_scheduled(Arc::clone(&self.service), until))
        };
        let writing = self.known_checkpoint.as_ref().map(|checkpoint| {
            let until = reached(stopped.clone(), Phase::Draining);
            tokio::spawn(keep_written_down(Arc::clone(checkpoint), until))
        });
        let keeper = Keeper {
            service: Arc::clone(&self.service),
            metrics: Arc::clone(&self.state.metrics),
            asked: self.asked,
            first_look: self.first_look,
            handle: self.reload,
        };
        let keeping_keks = self.kek_keeper.map(|keeper| {
            let until = reached(stopped.clone(), Phase::Draining);
            tokio::spawn(keep_keks(keeper, until))
        });
        let kept: Vec<_> = self
            .material
            .into_iter()
            .map(|material| keeper.keep(material, reached(stopped.clone(), Phase::Draining)))
            .collect();
        let operations = self.operations.map(|listener| {
            let router = operations_router(self.state.clone());
            // Outlives the API, so that probes see the readiness fail.
            let until = reached(stopped.clone(), Phase::Drained);
            tokio::spawn(server::serve(
                listener,
                Arc::new(server::Plain),
                router,
                until,
                Duration::ZERO,
            ))
        });
        let api = {
            let router = api_router(self.state);
            let until = reached(stopped, Phase::Draining);
            tokio::spawn(server::serve(
                self.api,
                self.handshake,
                router,
                until,
                self.shutdown_grace,
            ))
        };

        if !stopped_early {
            if let Some(tell) = self.when_serving {
                tell();
            }
            stop.await;
        }
        tracing::info!("shutting down: no new connections, requests in flight finish");
        self.service.begin_shutdown();
        stopping.send_replace(Phase::Draining);
        if let Some(hsm) = &self.software_hsm {
            hsm.end_stock();
        }
        let all_finished = api.await.unwrap_or(false);
        if !all_finished {
            tracing::warn!("some connections did not finish within server.shutdown_grace");
        }
        stopping.send_replace(Phase::Drained);
        if let Some(operations) = operations {
            // Whether a scrape was cut short matters to nobody.
            let _ = operations.await;
        }
        let _ = prober.await;
        let _ = reconciler.await;
        let _ = scheduler.await;
        if let Some(writing) = writing {
            let _ = writing.await;
        }
        for task in kept {
            let _ = task.await;
        }
        if let Some(keeping_keks) = keeping_keks {
            let _ = keeping_keks.await;
        }
        if let Some(hsm) = self.software_hsm {
            hsm.stop().await;
        }
        if let Some(checkpoint) = self.known_checkpoint {
            checkpoint.write_down().await;
        }
        self.data_plane.close().await;
        tracing::info!("stopped");
    }
}

/// Every file and folder that is read again when it changes.
fn renewable_files(config: &Config) -> impl Iterator<Item = PathBuf> {
    let tls = &config.tls;
    let of_tls = [&tls.certificate, &tls.private_key, &tls.client_ca, &tls.crl];
    let key_sets = [&config.auth.jwks, &config.approvals.jwks];
    let key_sets = key_sets.into_iter().filter_map(|jwks| match jwks {
        Some(KeySetLocation::File(path)) => Some(path.clone()),
        Some(KeySetLocation::Address(_)) | None => None,
    });
    of_tls
        .into_iter()
        .filter_map(Clone::clone)
        .chain(key_sets)
        .chain([config.data_dir.join(NEXT_LEDGER_KEY_FILE)])
        .chain([KekFiles::of(config).next()])
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            setting,
            address,
            source,
        })
}

fn make_data_dir(path: &Path) -> Result<(), StartError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StartError::DataDir {
            path: path.display().to_string(),
            source,
        })
}

fn open_store(
    config: &Config,
    metrics: &Arc<Metrics>,
    backlog: &Backlog,
) -> Result<Arc<dyn DataPlane>, StartError> {
    match &config.store.url {
        StoreUrl::Sqlite(path) => {
            let metrics = Arc::clone(metrics);
            let options = SqliteOptions {
                on_commit: Some(Arc::new(move |stats| {
                    metrics.observe_ledger_commit(stats.duration);
                })),
                backlog: backlog.clone(),
                ..SqliteOptions::default()
            };
            Ok(Arc::new(SqliteDataPlane::open(path, options)?))
        }
        StoreUrl::Memory => Ok(Arc::new(MemoryDataPlane::new())),
        StoreUrl::Postgres(_) => Err(StartError::Unsupported),
    }
}

fn service_policy(config: &Config) -> ServicePolicy {
    let keys = &config.keys;
    ServicePolicy {
        key_defaults: KeyDefaults {
            allowed_modules: keys.allowed_modules.clone(),
            max_usage_per_day: keys.max_usage_per_day.get(),
            rotation_schedule: keys.rotation_schedule,
            rotation_grace_period: keys.rotation_grace_period,
            erase_after: keys.erase_after,
        },
        approvals: ApprovalPolicy {
            operations: config.approvals.operations.clone(),
        },
        auditors: config.auth.auditors.clone(),
    }
}
