//! Where a server stands between its start and its end.

use tokio::sync::watch;

/// How far a server has come; it only goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It takes requests.
    Serving,
    /// It still takes requests, and says that it is not ready, so that nobody sends it new ones.
    Draining,
    /// It takes no connections; requests in work are answered.
    Closing,
}

impl Stage {
    /// Ends when the server has come this far.
    pub(crate) async fn reached(self, stage: &mut watch::Receiver<Self>) {
        // An error means that the sender is gone with its server, and that is as far as it goes.
        drop(stage.wait_for(|s| *s >= self).await);
    }
}
