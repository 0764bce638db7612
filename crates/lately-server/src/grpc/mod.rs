//! The gRPC interface, on the data door beside HTTP: `proto/lately/v1/lately.proto`, health and reflection.
//!
//! What a message asks for goes the same way as its JSON form, see `ask`; only the wire types stand here.

mod deadline;
mod events;
mod health;
mod inference;
mod observe;
mod priority;
mod ranking;
mod status;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::middleware::from_fn_with_state;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::codegen::Service;
use tonic::server::NamedService;

use crate::app::App;

/// Generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, reason = "generated code")]
pub(crate) mod pb {
    pub(crate) mod lately {
        tonic::include_proto!("lately.v1");
    }
    pub(crate) mod health {
        tonic::include_proto!("grpc.health.v1");
    }
    pub(crate) mod inference {
        tonic::include_proto!("inference");
    }
}

/// The files of `proto/`, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// What the services share, and what middleware needs.
#[derive(Clone)]
struct Shared {
    app: Arc<App>,
    /// Paths of all methods: the only ones that become labels of metrics.
    methods: Arc<BTreeSet<String>>,
}

/// The gRPC services, as routes of the data door.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let (small, large) = (app.limits.body_bytes, app.limits.batch_bytes);
    let shared = Shared { app: app.clone(), methods: Arc::new(methods()) };
    let ranking = pb::lately::ranking_server::RankingServer::new(ranking::Ranking(app.clone()));
    let events = pb::lately::events_server::EventsServer::new(events::Events(app.clone()));
    let inference = pb::inference::grpc_inference_service_server::GrpcInferenceServiceServer::new(
        inference::Inference(app.clone()),
    );
    let health = pb::health::health_server::HealthServer::new(health::Health(app.clone()));
    let mut routes = Router::new();
    routes = add(routes, ranking.max_decoding_message_size(small));
    routes = add(routes, events.max_decoding_message_size(large));
    routes = add(routes, inference.max_decoding_message_size(small));
    routes = add(routes, health.max_decoding_message_size(small));
    routes = with_reflection(routes);
    routes.layer(from_fn_with_state(shared, observe::observe))
}

/// Adds a service at its name.
fn add<S>(routes: Router, service: S) -> Router
where
    S: Service<Request<Body>, Error = std::convert::Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Response: axum::response::IntoResponse,
    S::Future: Send + 'static,
{
    routes.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// Both versions of reflection: tools that are a few years old know only the first.
fn with_reflection(routes: Router) -> Router {
    let builder =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => add(add(routes, v1), v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "no server reflection");
            routes
        }
    }
}

/// The paths of all methods.
fn methods() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
    let paths = files.iter().flat_map(|file| {
        file.service.iter().flat_map(move |service| {
            let path = move |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
            service.method.iter().map(move |method| path(method.name()))
        })
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_method_has_its_label() {
        let methods = super::methods();
        assert!(
            methods.contains("/lately.v1.Ranking/Rank") && methods.contains("/grpc.health.v1.Health/Watch")
        );
        assert_eq!(methods.len(), 3 + 4 + 2 + 6);
    }
}
