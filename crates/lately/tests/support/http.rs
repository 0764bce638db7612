//! A client of the public interface, for tests: JSON in, status and JSON out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use ureq::http::Request;

/// Talks to one door.
#[derive(Clone)]
pub(crate) struct Http {
    agent: ureq::Agent,
    base: String,
}

impl Http {
    /// To `http://host:port`.
    pub(crate) fn new(base: impl Into<String>) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10)));
        let agent = config.http_status_as_error(false).build().into();
        Self { agent, base: base.into() }
    }

    /// One request; an error only where there is no answer.
    pub(crate) fn text(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let mut response = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(body.to_string())?)
            }
            None => self.agent.run(request.body(())?),
        }
        .with_context(|| format!("{method} {path}"))?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    }

    /// One request that must be answered by 200 and JSON.
    pub(crate) fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, text) = self.text(method, path, body)?;
        ensure!(status == 200, "{method} {path}: {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: {text}"))
    }
}
