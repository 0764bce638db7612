//! The gRPC services: every good path, deadlines, health.

use std::collections::HashMap;
use std::time::Duration;

use lately_server::Limits;
use serde_json::json;
use tokio_stream::StreamExt;
use tonic::{Code, Request};

use crate::client::pb::health::HealthCheckRequest;
use crate::client::pb::health::health_check_response::ServingStatus;
use crate::client::pb::lately as pb;
use crate::client::{EventsClient, HealthClient, RankingClient, channel, connect, refused};
use crate::support::{House, house};

fn action(id: &str, item: &str) -> pb::Event {
    let action = pb::Action {
        event_id: id.to_owned(),
        user: "u".to_owned(),
        item: item.to_owned(),
        action: "save".to_owned(),
        surface: Some("home".to_owned()),
        ..Default::default()
    };
    pb::Event { event: Some(pb::event::Event::Action(action)) }
}

fn user() -> pb::Event {
    use pb::feature_value::Value;
    let value = |value| pb::FeatureValue { value: Some(value) };
    let features = HashMap::from([
        ("country".to_owned(), value(Value::Text("at".to_owned()))),
        ("age".to_owned(), value(Value::Number(30.0))),
    ]);
    let user = pb::User { user: "u".to_owned(), time_ms: None, features };
    pb::Event { event: Some(pb::event::Event::User(user)) }
}

fn item(id: &str) -> pb::Item {
    use pb::feature_value::Value;
    let value = |value| pb::FeatureValue { value: Some(value) };
    let features = HashMap::from([
        ("vector".to_owned(), value(Value::Vector(pb::Vector { values: vec![1.0, 0.5] }))),
        ("topic".to_owned(), value(Value::Texts(pb::Texts { values: vec!["t1".to_owned()] }))),
    ]);
    pb::Item { item: id.to_owned(), features, active: None, time_ms: None }
}

fn ask(candidates: &[&str]) -> pb::RankRequest {
    let candidates = candidates.iter().map(|&id| id.to_owned()).collect();
    pb::RankRequest { user: "u".to_owned(), candidates, ..Default::default() }
}

async fn clients(
    house: &House,
) -> (EventsClient<tonic::transport::Channel>, RankingClient<tonic::transport::Channel>) {
    let channel = channel(house).await;
    (EventsClient::new(channel.clone()), RankingClient::new(channel))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_save_enters_the_next_ranking_and_the_users_page_until_the_user_is_forgotten() {
    let house = house(Limits::default());
    house.load(1);
    let (mut events, mut ranking) = clients(&house).await;
    let items = pb::PutItemsRequest { items: vec![item("i1"), item("i2")] };
    assert_eq!(events.put_items(items).await.unwrap().into_inner().accepted, 2);
    let batch = pb::AppendEventsRequest { events: vec![action("e1", "i1"), user(), action("e1", "i1")] };
    let taken = events.append_events(batch).await.unwrap().into_inner();
    assert_eq!((taken.accepted, taken.duplicates, taken.rejected.len()), (3, 1, 0));

    let full = pb::RankRequest {
        explain: true,
        limit: Some(1),
        request: Some("r1".to_owned()),
        drop: vec![pb::DropRule::Hidden.into(), pb::DropRule::Shown.into()],
        spacing: true,
        pins: vec![pb::Pin { item: "i2".to_owned(), position: 0 }],
        ..ask(&["i1", "i2", "i1"])
    };
    let logged = house.store.next_offset();
    let ranked = ranking.rank(full).await.unwrap().into_inner();
    house.until_logged(logged + 1);
    assert_eq!((ranked.items.len(), ranked.request.as_str(), ranked.user.as_str()), (1, "r1", "u"));
    assert!(ranked.watermark >= taken.watermark && ranked.degraded.is_empty(), "{ranked:?}");
    assert_eq!((ranked.explain.unwrap().tokens, ranked.items[0].item.as_str()), (1, "i2"), "it is pinned");
    assert_eq!((ranked.dropped[0].item.as_str(), ranked.dropped[0].reason.as_str()), ("i1", "duplicate"));
    assert!(ranked.timings_us.contains_key("score"));

    let known = events.get_user(pb::GetUserRequest { user: "u".to_owned() }).await.unwrap().into_inner();
    assert_eq!((known.sequence[0].item.as_str(), known.sequence[0].surface.as_deref()), ("i1", Some("home")));
    let features = known.features.unwrap();
    assert_eq!((features.numeric["age"], features.categorical["country"].values.len()), (30.0, 1));
    let gone = events.delete_user(pb::DeleteUserRequest { user: "u".to_owned() }).await.unwrap().into_inner();
    assert!(gone.removed_records >= 3, "{gone:?}");
    let unknown = events.get_user(pb::GetUserRequest { user: "u".to_owned() }).await;
    assert_eq!(refused(unknown), (Code::NotFound, "unknown_user".into(), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn good_events_of_a_batch_are_taken_and_bad_ones_named() {
    let house = house(Limits::default());
    let (mut events, _) = clients(&house).await;
    let mut wrong = action("e2", "i1");
    if let Some(pb::event::Event::Action(action)) = &mut wrong.event {
        action.action = "saved".to_owned();
    }
    let impression = pb::Impression {
        request: "r".to_owned(),
        user: "u".to_owned(),
        items: vec!["a".to_owned(), "a".to_owned()],
        ..Default::default()
    };
    let impression = pb::Event { event: Some(pb::event::Event::Impression(impression)) };
    let batch = vec![action("e1", "i1"), wrong, impression, pb::Event { event: None }, action("e3", "")];
    let reply = events.append_events(pb::AppendEventsRequest { events: batch }).await.unwrap().into_inner();
    let codes: Vec<_> = reply.rejected.iter().map(|r| (r.index, r.code.as_str())).collect();
    assert_eq!(reply.accepted, 1);
    assert_eq!(codes, [(1, "unknown_action"), (2, "repeated_item"), (3, "bad_event"), (4, "bad_event")]);
    assert!(reply.rejected[3].message.contains("item: an id is empty"), "{:?}", reply.rejected[3]);
    let mut empty = item("i1");
    empty.features.insert("topic".to_owned(), pb::FeatureValue { value: None });
    let reply = events.put_items(pb::PutItemsRequest { items: vec![empty] }).await.unwrap().into_inner();
    assert_eq!((reply.accepted, reply.rejected[0].code.as_str()), (0, "bad_event"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn feeds_and_models_are_there() {
    let house = house(Limits::default());
    let (_, mut ranking) = clients(&house).await;
    let models = ranking.list_models(pb::ListModelsRequest {}).await.unwrap().into_inner();
    assert_eq!(models.models.len(), 0);
    house.furnish();
    let models = ranking.list_models(pb::ListModelsRequest {}).await.unwrap().into_inner();
    let champion = &models.models[0];
    assert_eq!(
        (champion.alias.as_str(), champion.version.as_str(), champion.generation),
        ("champion", "m1", 1)
    );
    assert_eq!((&champion.schema_hash, champion.heads.len()), (&models.schema_hash, 2));
    let asked = pb::FeedRequest { user: "u".to_owned(), limit: Some(5), explain: true, ..Default::default() };
    let begin = std::time::Instant::now();
    loop {
        let page = ranking.feed(asked.clone()).await.unwrap().into_inner();
        if page.items.len() == 5 {
            assert!(page.items[0].source.is_some() && page.explain.is_some());
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "new items are found within seconds: {page:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_deadline_of_the_call_is_the_rankings_deadline() {
    let house = house(Limits::default());
    house.furnish();
    let (_, mut ranking) = clients(&house).await;
    let with = |timeout: &str, deadline_ms: Option<u64>| {
        let mut call = Request::new(pb::RankRequest { deadline_ms, ..ask(&["i1", "i2"]) });
        call.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        call
    };
    // Far longer than the ranker allows to ask for: the call waits, the ranking keeps its own time.
    let long = ranking.rank(with("1H", None)).await.unwrap().into_inner();
    assert_eq!(long.degraded, Vec::<String>::new());
    let both = ranking.rank(with("30S", Some(5_000))).await.unwrap().into_inner();
    assert_eq!(both.degraded, Vec::<String>::new());
    // Refused as over HTTP, however long the call waits.
    let over = ranking.rank(with("30S", Some(999_999))).await;
    assert_eq!(refused(over), (Code::InvalidArgument, "bad_deadline".into(), false));
    let zero = ranking.rank(with("30S", Some(0))).await;
    assert_eq!(refused(zero), (Code::InvalidArgument, "bad_deadline".into(), false));
    let nonsense = ranking.rank(with("soon", None)).await;
    assert_eq!(refused(nonsense), (Code::InvalidArgument, "bad_deadline".into(), false));
    // By hand: a client of gRPC would give up by itself.
    let (mut send, _connection) = connect(&house).await;
    let late = hyper::Request::post("http://lately/lately.v1.Ranking/Rank").header("grpc-timeout", "1n");
    let late = late.header("content-type", "application/grpc").body(vec![0; 5].into()).unwrap();
    let answer = send.send_request(late).await.unwrap();
    assert_eq!(
        (&answer.headers()["grpc-status"], &answer.headers()["lately-code"]),
        (&"4".parse().unwrap(), &"timeout".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn health_follows_the_model_and_watchers_hear_of_it() {
    let house = house(Limits::default());
    let mut health = HealthClient::new(channel(&house).await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let mut watched = health.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(
        health.check(ask("lately.v1.Ranking")).await.unwrap().into_inner().status(),
        ServingStatus::NotServing
    );
    assert_eq!(
        health.check(ask("lately.v1.Events")).await.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
    let none = health.check(ask("lately.v2.Ranking")).await;
    assert_eq!(refused(none), (Code::NotFound, "unknown_service".into(), false));
    let mut none = health.watch(ask("lately.v2.Ranking")).await.unwrap().into_inner();
    assert_eq!(none.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    house.load(1);
    assert_eq!(health.check(ask("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_are_counted_by_method_and_code() {
    let house = house(Limits::default());
    let (_, mut ranking) = clients(&house).await;
    ranking.rank(ask(&["in-particular"])).await.unwrap();
    ranking.rank(ask(&[])).await.unwrap_err();
    let (_, text) = house.admin("GET", "/metrics");
    for label in ["code=\"Ok\"", "code=\"InvalidArgument\""] {
        let name = format!("lately_grpc_requests_total{{method=\"/lately.v1.Ranking/Rank\",{label}}}");
        assert!(text.contains(&name), "{name} is not in\n{text}");
    }
    assert!(text.contains("lately_grpc_seconds_count") && !text.contains("in-particular"));
    assert_eq!(house.post("/v1/rank", &json!({"user": "u", "candidates": ["a"]})).0, 200, "HTTP beside it");
}
