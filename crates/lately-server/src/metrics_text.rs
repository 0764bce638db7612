//! Metrics in Prometheus' text form.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Buckets of times, s.
const SECONDS: [f64; 17] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0,
    60.0,
];
/// Buckets of counts.
const COUNTS: [f64; 9] = [1.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_000.0];
/// Buckets of the age of a sequence, s: to a month.
const AGES: [f64; 10] = [0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0];
/// Buckets of the difference of two models' probabilities, and of their rank correlation.
const DIFFERENCES: [f64; 9] = [0.000_1, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5];
const CORRELATIONS: [f64; 8] = [0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
/// How often histograms are compacted where nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process has one recorder.
static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Why metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot record metrics: {0}; another recorder is installed in this process")]
pub struct MetricsError(String);

/// Records metrics of this process from now on; called again, gives the same handle.
///
/// # Errors
/// [`MetricsError`] where another recorder is installed.
pub fn install_metrics() -> Result<PrometheusHandle, MetricsError> {
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*handle {
        return Ok(handle.clone());
    }
    let failed = |e: metrics_exporter_prometheus::BuildError| MetricsError(e.to_string());
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|b| b.set_buckets_for_metric(Matcher::Full("lately_rank_candidates".into()), &COUNTS))
        .and_then(|b| b.set_buckets_for_metric(Matcher::Prefix("lately_rank_batch_".into()), &COUNTS))
        .and_then(|b| {
            b.set_buckets_for_metric(Matcher::Full("lately_rank_sequence_age_seconds".into()), &AGES)
        })
        .and_then(|b| {
            let difference = Matcher::Full("lately_shadow_probability_difference".into());
            b.set_buckets_for_metric(difference, &DIFFERENCES)
        })
        .and_then(|b| {
            let correlation = Matcher::Full("lately_shadow_rank_correlation".into());
            b.set_buckets_for_metric(correlation, &CORRELATIONS)
        });
    let installed = builder.and_then(PrometheusBuilder::install_recorder).map_err(failed)?;
    *handle = Some(installed.clone());
    let upkeep = installed.clone();
    let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
        loop {
            std::thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    });
    thread.map_err(|e| MetricsError(e.to_string()))?;
    Ok(installed)
}
