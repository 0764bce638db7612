//! Ctrl-C and SIGTERM as something that can be waited for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// Whether the process was asked to end.
pub struct Interrupt {
    /// The receiver, and whether the message has come.
    state: Mutex<(Receiver<()>, bool)>,
}

impl Interrupt {
    /// Catches the signals from now on.
    pub fn install() -> Result<Self> {
        let (send, receive) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, installed) = channel();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let mut term = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                {
                    Ok(term) => {
                        drop(ready.send(Ok(())));
                        term
                    }
                    Err(error) => return drop(ready.send(Err(error))),
                };
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = term.recv() => {}
                }
                send.send(()).ok(); // nobody waits any more: nothing to stop
            });
        })?;
        installed.recv().context("the signal thread ended")?.context("cannot catch signals")?;
        Ok(Self { state: Mutex::new((receive, false)) })
    }

    /// Waits for a signal, or for `limit`; whether there was one.
    pub fn wait(&self, limit: Option<Duration>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.1 {
            return true;
        }
        let (receiver, asked) = &mut *state;
        *asked = match limit {
            Some(limit) => receiver.recv_timeout(limit) != Err(RecvTimeoutError::Timeout),
            None => {
                // An error means that the signal thread is gone: end rather than hang.
                receiver.recv().ok();
                true
            }
        };
        *asked
    }
}
