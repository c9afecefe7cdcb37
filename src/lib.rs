//! Relais, a mutual-TLS client gateway for French e-health.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod identity;
pub mod inbound;
pub mod metrics;
pub mod outbound;
pub mod services;
pub mod shutdown;
pub mod simulator;
pub mod telemetry;
