//! Clients of the interfaces.

use axum::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lately_server::packed::{Answer, MEDIA_TYPE, Request};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::support::House;

/// Generated from `proto/`.
#[allow(clippy::all, dead_code, missing_docs, unreachable_pub, reason = "generated code")]
pub(crate) mod pb {
    pub(crate) mod lately {
        include!(concat!(env!("OUT_DIR"), "/client/lately.v1.rs"));
    }
    pub(crate) mod health {
        include!(concat!(env!("OUT_DIR"), "/client/grpc.health.v1.rs"));
    }
    pub(crate) mod inference {
        include!(concat!(env!("OUT_DIR"), "/client/inference.rs"));
    }
}

pub(crate) use pb::health::health_client::HealthClient;
pub(crate) use pb::inference::grpc_inference_service_client::GrpcInferenceServiceClient as InferenceClient;
pub(crate) use pb::lately::events_client::EventsClient;
pub(crate) use pb::lately::ranking_client::RankingClient;

/// One HTTP/2 connection for gRPC.
pub(crate) async fn channel(house: &House) -> Channel {
    Endpoint::try_from(format!("http://{}", house.data)).unwrap().connect().await.unwrap()
}

/// One HTTP/2 connection, and the task that ends with it.
pub(crate) async fn connect(
    house: &House,
) -> (http2::SendRequest<Body>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = tokio::net::TcpStream::connect(house.data).await.unwrap();
    let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (send, tokio::spawn(connection))
}

/// A request with a JSON body, that may come later.
pub(crate) fn post(path: &str, body: impl Into<Body>) -> hyper::Request<Body> {
    let uri = format!("http://lately{path}");
    let request = hyper::Request::post(uri).header("content-type", "application/json");
    request.body(body.into()).unwrap()
}

pub(crate) async fn json_of(response: hyper::Response<hyper::body::Incoming>) -> Value {
    let body = axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// Status, `lately-code`, and whether a pushback came.
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String, bool) {
    let status = answer.unwrap_err();
    assert!(!status.message().is_empty());
    let code = status.metadata().get("lately-code").map_or("", |code| code.to_str().unwrap()).to_owned();
    (status.code(), code, status.metadata().contains_key("grpc-retry-pushback-ms"))
}

impl House {
    /// Sends bytes with headers; gives status, `Content-Type` and body.
    pub(crate) fn bytes(&self, headers: &[(&str, &str)], body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut request = ureq::http::Request::post(format!("http://{}/v1/rank", self.data));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body).unwrap()).unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (response.status().as_u16(), kind, response.body_mut().read_to_vec().unwrap())
    }

    pub(crate) fn packed(&self, ask: &Request) -> Answer {
        let headers = [("content-type", MEDIA_TYPE), ("accept", MEDIA_TYPE)];
        let (status, kind, body) = self.bytes(&headers, &ask.encode().unwrap());
        assert_eq!((status, kind.as_str()), (200, MEDIA_TYPE), "{}", String::from_utf8_lossy(&body));
        Answer::decode(&body).unwrap()
    }

    /// A stocked house with a model, and a user with a history.
    pub(crate) fn furnish(&self) {
        self.stock(12);
        self.load(1);
        let save = |i: usize| crate::support::save(&format!("e{i}"), "u", &format!("i{i}"));
        self.ok("POST", "/v1/events", &json!({"events": (0..4).map(save).collect::<Vec<_>>()}));
    }
}
