//! Relais, a mutual-TLS client gateway for French e-health: applications send plain HTTP to localhost, and each
//! request reaches the right national service under the right structure's IGC-Santé certificate.
//!
//! # Walk of one request
//!
//! | question | module | what happens there |
//! |---|---|---|
//! | how did it arrive? | [`inbound`] | a worker accepts the connection and reads HTTP/1.1 or h2c |
//! | who, for what? | [`gateway`] | web pages are kept out; tenant and service are read off the request; the [`gateway::table::Table`] gives the pool |
//! | as whom? | [`identity`] | what was chosen beforehand: the [`identity::generation::Generation`] whose certificate may speak for the tenant to the service |
//! | over which wire? | [`outbound`] | the [`outbound::pool::Pool`] of that generation and service gives a connection, or opens one |
//!
//! The answer streams back the same way. [`gateway::exchange::Reply`] writes the request down when it has ended.
//!
//! Beside the request path: [`services`] (the catalogue), [`config`], [`app`] (puts everything together), [`admin`],
//! [`crls`] (fresh revocation lists), [`notices`] (what somebody is told), [`metrics`], [`telemetry`], [`shutdown`],
//! [`takeover`] (a successor without a pause), `hardening` and `sandbox` (what the process forbids itself),
//! [`simulator`] (stand-ins for the services) and [`cli`].

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod crls;
mod fetch;
mod files;
pub mod gateway;
mod hardening;
pub mod identity;
pub mod inbound;
pub mod metrics;
pub mod notices;
pub mod outbound;
mod sandbox;
pub mod services;
mod share;
pub mod shutdown;
pub mod simulator;
pub mod takeover;
pub mod telemetry;
mod waiting;
