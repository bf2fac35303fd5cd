//! What an operator watches the service with: alerts, dashboards, and the programs
//! that they are for.

mod catalogue;
mod dashboard;
mod promql;
mod rules;
mod scraping;
