//! What a connection does, and when it has done nothing for too long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::body::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Requests in work on a connection, and whether the first bytes of another one have come.
#[derive(Clone)]
pub(crate) struct Activity(Arc<watch::Sender<Doing>>);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Doing {
    requests: usize,
    /// Bytes of a request's headers have come while no request was in work.
    headers: bool,
}

/// How long nothing may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Without a request.
    pub(crate) idle: Duration,
    /// From the first byte of a request's headers to the last.
    pub(crate) headers: Duration,
}

/// A request in work, its answer included; dropping it ends it.
pub(crate) struct InWork(Activity);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Doing::default())))
    }

    pub(crate) fn begin(&self) -> InWork {
        self.0.send_modify(|doing| *doing = Doing { requests: doing.requests + 1, headers: false });
        InWork(self.clone())
    }

    fn bytes_came(&self) {
        self.0.send_if_modified(|doing| {
            let first = doing.requests == 0 && !doing.headers;
            doing.headers |= first;
            first
        });
    }

    /// Ends when nothing was in work for too long.
    pub(crate) async fn too_idle(&self, patience: Patience) {
        let mut doing = self.0.subscribe();
        // An error would mean that the sender is gone, which `self` holds.
        while let Ok(headers) = doing.wait_for(|d| d.requests == 0).await.map(|d| d.headers) {
            let limit = if headers { patience.headers } else { patience.idle };
            // Any change begins anew, also a request that has come and gone.
            if tokio::time::timeout(limit, doing.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.0.send_modify(|doing| doing.requests -= 1);
    }
}

/// The body of an answer; its request is in work until all of it is sent, or given up.
pub(crate) struct Answering {
    pub(crate) body: Body,
    pub(crate) _request: InWork,
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that tells when bytes come.
pub(crate) struct Watched<S> {
    pub(crate) stream: S,
    pub(crate) activity: Activity,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.bytes_came();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const PATIENCE: Patience =
        Patience { idle: Duration::from_secs(3_600), headers: Duration::from_millis(5) };
    const SOON: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn begun_headers_have_less_time_than_an_idle_connection_and_a_request_in_work_has_all() {
        let activity = Activity::new();
        assert!(timeout(SOON, activity.too_idle(PATIENCE)).await.is_err(), "idle for an hour is fine");
        let request = activity.begin();
        activity.bytes_came();
        assert!(timeout(SOON, activity.too_idle(PATIENCE)).await.is_err(), "those are of its body");
        drop(request);
        assert!(timeout(SOON, activity.too_idle(PATIENCE)).await.is_err());
        activity.bytes_came();
        timeout(Duration::from_secs(60), activity.too_idle(PATIENCE)).await.unwrap();
    }
}
