//! Events in ingest order: users, items with what the history tells of them, the history, the window.

use lately_features::FeatureValue;
use lately_features::{Event, ItemId, RequestId, UserId};

use super::super::emitter::{Emitter, action, item, shown, user};
use super::super::{Embed, ImportError, ImportReport, Sink, VECTOR_DIM};
use super::log::{Flags, History, Shown};
use super::{KuaiRand, WINDOW_START_MS};

/// Weight of the rate over all items in an item's smoothed rate, in impressions.
const PRIOR: f64 = 20.0;

/// Action types from the weakest to the strongest, after `seen`.
const ACTIONS: [(Flags, &str); 4] =
    [(Flags::CLICK, "click"), (Flags::LONG_VIEW, "long_view"), (Flags::SAVE, "save"), (Flags::HIDE, "hide")];

impl KuaiRand {
    /// Learns the item vectors by `embed` and hands all events to `sink`.
    pub fn emit(self, embed: &Embed<'_>, sink: &mut Sink<'_>) -> Result<ImportReport, ImportError> {
        let mut out = Emitter::new(self.report.clone(), sink);
        for (id, features) in self.users.iter() {
            out.push(user(user_id(id)?, WINDOW_START_MS, features))?;
        }
        self.emit_items(embed, &mut out)?;
        for history in &self.history {
            self.emit_history(history, &mut out)?;
        }
        // Those shown at one millisecond come first, their actions after: an outcome is not known while its
        // neighbour is being ranked.
        for moment in self.shown.chunk_by(|a, b| a.time_ms == b.time_ms) {
            for one in moment {
                let (request, user, item, surface) = self.keys(one)?;
                out.push(shown(request, user, item, one.time_ms, Some(surface)))?;
            }
            for one in moment {
                self.emit_actions(one, &mut out)?;
            }
        }
        out.finish()
    }

    fn emit_items(&self, embed: &Embed<'_>, out: &mut Emitter<'_, '_>) -> Result<(), ImportError> {
        let items = self.items.len();
        let sequences: Vec<Vec<u32>> =
            self.history.iter().map(|h| h.past.iter().map(|p| p.item).collect()).collect();
        let vectors = embed(&sequences, items);
        if vectors.len() != items * VECTOR_DIM {
            return Err(ImportError::Vectors { items, got: vectors.len() });
        }
        let statistics = statistics(&self.history, items);
        for (i, (video, features)) in self.items.rows().iter().enumerate() {
            let mut features = features.clone();
            let vector = vectors[i * VECTOR_DIM..(i + 1) * VECTOR_DIM].to_vec();
            features.insert("vector".to_owned(), FeatureValue::Vector(vector));
            let names = ["history_count", "history_long_view", "history_like"];
            for (name, value) in names.into_iter().zip(statistics[i]) {
                features.insert(name.to_owned(), FeatureValue::Number(value));
            }
            out.push(item(ItemId::new(video.to_string())?, WINDOW_START_MS, features, true))?;
        }
        Ok(())
    }

    /// One action for each past impression, of the strongest type.
    fn emit_history(&self, history: &History, out: &mut Emitter<'_, '_>) -> Result<(), ImportError> {
        for (n, past) in history.past.iter().enumerate() {
            let strongest = ACTIONS.iter().rev().find(|(flag, _)| past.flags.has(*flag));
            let event = action(
                format!("h{}:{n}", history.user),
                user_id(history.user)?,
                ItemId::new(self.items.video(past.item).to_string())?,
                strongest.map_or("seen", |(_, name)| name),
                past.time_ms,
                None,
                None,
            );
            out.push(event?)?;
            out.report.history += 1;
        }
        Ok(())
    }

    fn emit_actions(&self, one: &Shown, out: &mut Emitter<'_, '_>) -> Result<(), ImportError> {
        let (request, user, item, surface) = self.keys(one)?;
        let done = ACTIONS.iter().filter(|(flag, _)| one.flags.has(*flag)).map(|(_, name)| *name);
        for name in std::iter::once("seen").chain(done) {
            let event = action_of(one, name, &request, &user, &item, &surface);
            out.push(event?)?;
        }
        Ok(())
    }

    fn keys(&self, one: &Shown) -> Result<(RequestId, UserId, ItemId, String), ImportError> {
        let request = RequestId::new(format!("k{}", one.row))?;
        let item = ItemId::new(self.items.video(one.item).to_string())?;
        Ok((request, user_id(one.user)?, item, format!("tab{}", one.tab)))
    }
}

fn action_of(
    one: &Shown,
    name: &str,
    request: &RequestId,
    user: &UserId,
    item: &ItemId,
    surface: &str,
) -> Result<Event, ImportError> {
    let id = format!("{request}:{name}");
    let surface = Some(surface.to_owned());
    action(id, user.clone(), item.clone(), name, one.time_ms, Some(request.clone()), surface)
}

fn user_id(id: u32) -> Result<UserId, ImportError> {
    Ok(UserId::new(id.to_string())?)
}

/// For each item: impressions in the history, and the rates of long views and likes, smoothed.
fn statistics(history: &[History], items: usize) -> Vec<[f64; 3]> {
    let mut counts = vec![[0.0; 3]; items];
    let mut all = [0.0; 3];
    for past in history.iter().flat_map(|h| &h.past) {
        let of = |flag| f64::from(u8::from(past.flags.has(flag)));
        let add = [1.0, of(Flags::LONG_VIEW), of(Flags::LIKE)];
        for (total, n) in counts[past.item as usize].iter_mut().chain(&mut all).zip(add.iter().cycle()) {
            *total += n;
        }
    }
    let prior = |n: f64| if all[0] > 0.0 { n / all[0] } else { 0.0 };
    let smooth = |n: f64, of: f64, rate: f64| (n + PRIOR * rate) / (of + PRIOR);
    let one = |[n, long, like]: [f64; 3]| [n, smooth(long, n, prior(all[1])), smooth(like, n, prior(all[2]))];
    counts.into_iter().map(one).collect()
}
