//! The only place that knows HTTP, gRPC and JSON.
//!
//! Two doors: the data port (`/v1/...`, see `http`, and gRPC, see `grpc`) and the admin port (metrics, model reload);
//! control never shares a port with data. The JSON forms stand beside their handlers, and `/openapi.json` describes
//! them; gRPC's are in `proto/`. All forms of a ranking meet in `ask`. A connection's limits are in `connection`, the
//! graceful end in [`serve`].
//!
//! Every error is `{"error":{"code","message"}}`: 400 no JSON, 404, 405, 413 too large, 415 not JSON, 422 not what
//! was asked for, 429 with `Retry-After` where one user asks too much, 503 with `Retry-After` when overloaded or not
//! ready, 507 disk full.
//!
//! # Metrics (beside those of `lately-rank`)
//! | name | kind | meaning |
//! | --- | --- | --- |
//! | `lately_http_requests_total{route,status}` | counter | answers; `route` is the pattern, never the path |
//! | `lately_http_seconds{route}` | histogram | time to the answer |
//! | `lately_grpc_requests_total{method,code}` | counter | calls; `method` is one of `proto/`, or `other` |
//! | `lately_grpc_seconds{method}` | histogram | time to the answer |
//! | `lately_events_total{type,result}` | counter | accepted or rejected events |
//! | `lately_freshness_seconds` | histogram | from an action's arrival to the moment from which every ranking sees it |
//! | `lately_rankings_limit`, `lately_rankings_in_work` | gauge | rankings that may be, and are, in work |
//! | `lately_rankings_wait_seconds` | histogram | how long a ranking waited for a place |
//! | `lately_rankings_refused_total{reason,priority}` | counter | refused before reading: limit, waiting, background |
//! | `lately_user_capped_total{type}` | counter | rankings and actions beyond a user's rate |
//! | `lately_log_records`, `lately_log_queued_events`, `lately_items`, `lately_disk_bytes` | gauge | the store |

mod activity;
mod admission;
mod app;
mod ask;
mod caps;
mod concurrency;
mod connection;
mod error;
mod experiments;
mod gate;
mod grpc;
mod http;
mod json;
mod limits;
mod metrics_text;
mod oip;
mod openapi;
pub mod packed;
mod serve;
mod stage;

pub use app::{App, Reload};
pub use experiments::{DeskError, ExperimentDesk, ExperimentReport};
pub use http::{admin_router, read_page, router};
pub use limits::{LimitError, Limits};
pub use metrics_text::{MetricsError, install_metrics};
pub use openapi::openapi_json;
pub use serve::{ServeError, check_bind, serve};
