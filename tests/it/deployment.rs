//! What the service is deployed with: manifests, the unit and the image are held to the
//! programs that read them, and to the service itself.

mod cluster_settings;
mod image;
mod manifests;
mod rolling_restart;
mod schemas;
mod service_manager;
mod systemd_unit;
