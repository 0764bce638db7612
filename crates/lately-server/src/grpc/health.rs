//! `grpc.health.v1.Health`: the whole server (the empty name) and each service, as `/readyz` says it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::pb::health as pb;
use super::pb::health::health_check_response::ServingStatus;
use super::pb::inference::grpc_inference_service_server::SERVICE_NAME as INFERENCE;
use super::pb::lately::{events_server::SERVICE_NAME as EVENTS, ranking_server::SERVICE_NAME as RANKING};
use crate::app::App;
use crate::error::ApiError;
use crate::stage::Stage;

/// Pause between looks at what a watcher waits for.
const LOOK: Duration = Duration::from_millis(250);

pub(super) struct Health(pub(super) Arc<App>);

#[tonic::async_trait]
impl pb::health_server::Health for Health {
    async fn check(
        &self,
        call: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        match status(&self.0, &call.get_ref().service) {
            ServingStatus::ServiceUnknown => {
                Err(ApiError::not_found("unknown_service", "no such service: see server reflection").into())
            }
            status => Ok(Response::new(pb::HealthCheckResponse { status: status.into() })),
        }
    }

    type WatchStream = ReceiverStream<Result<pb::HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        call: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // The next status waits until the client has taken the last one.
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(watch(self.0.clone(), call.into_inner().service, send));
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}

/// Tells each change, until the client leaves or the server closes: a stream that stays would hold up its end.
async fn watch(app: Arc<App>, service: String, send: mpsc::Sender<Result<pb::HealthCheckResponse, Status>>) {
    let (mut stage, mut last) = (app.stage.subscribe(), None);
    loop {
        let last_look = *stage.borrow() == Stage::Closing;
        let now = status(&app, &service);
        if last.replace(now) != Some(now) {
            let message = pb::HealthCheckResponse { status: now.into() };
            if send.send(Ok(message)).await.is_err() {
                return;
            }
        }
        if last_look {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = send.closed() => return,
            () = Stage::Closing.reached(&mut stage) => {}
        }
    }
}

fn status(app: &App, service: &str) -> ServingStatus {
    let serving = match service {
        "" | RANKING | INFERENCE => app.ready().is_ok(),
        // Takes events also where nothing can be ranked by a model.
        EVENTS => *app.stage.borrow() == Stage::Serving,
        _ => return ServingStatus::ServiceUnknown,
    };
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}
