//! Relais, a mutual-TLS client gateway for French e-health.

pub mod config;
pub mod gateway;
pub mod identity;
pub mod metrics;
pub mod outbound;
pub mod services;
pub mod simulator;
pub mod telemetry;
