//! Items with the vectors of a table: written before the store was opened with it, and after.

use lately_features::ItemVectors;
use lately_features::event::Item;

use super::*;

fn sent(id: &str, vector: [f32; 2]) -> Event {
    let features = FeatureValues::from([("vector".to_owned(), FeatureValue::Vector(vector.to_vec()))]);
    Event::Item(Item { item: item(id), time_ms: T0, features, active: true })
}

#[test]
fn items_have_the_tables_vectors_and_the_disk_what_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(vec![sent("a", [1.0, 1.0]), sent("b", [2.0, 2.0])]).unwrap();
    let schema = schema(SCHEMA);
    let table = ItemVectors::new(&schema, "v", vec![item("a"), item("c")], vec![7.0, 7.0, 8.0, 8.0], None);
    let vectors = Some(Arc::new(table.unwrap()));
    let store = Store::open_with_vectors(dir.path(), schema, StoreLimits::default(), vectors).unwrap();
    store.append(vec![sent("c", [3.0, 3.0]), sent("d", [4.0, 4.0])]).unwrap();
    let vector = |store: &Store, id: &str| store.item(&item(id)).unwrap().embedding[0];
    assert_eq!(["a", "b", "c", "d"].map(|id| vector(&store, id)), [7.0, 0.0, 8.0, 0.0]);
    assert_eq!(store.item_vectors().map(|v| v.version().to_owned()).as_deref(), Some("v"));
    drop(store);
    let store = open(dir.path());
    assert_eq!(["a", "b", "c", "d"].map(|id| vector(&store, id)), [1.0, 2.0, 3.0, 4.0]);
}
