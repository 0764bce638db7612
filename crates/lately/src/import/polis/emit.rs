//! Votes in order, and the statements as they were known then.

use std::collections::BTreeMap;

use lately_features::event::FeatureValues;
use lately_features::{FeatureValue, ItemId, RequestId, UserId};

use super::super::emitter::{Emitter, action, item, shown};
use super::super::{Embed, ImportError, ImportReport, Sink, VECTOR_DIM};
use super::{Choice, Polis, Vote};

/// Weight of the conversation's rates in a statement's, in votes.
const PRIOR: f64 = 10.0;
/// Votes after which a statement is written again, once it has more than 16.
const REFRESH: u32 = 25;

/// Disagreed, passed, agreed: how often so far.
type Tally = [u32; 3];

/// What is known at a moment of the emission.
struct Known {
    comments: Vec<Tally>,
    conversations: Vec<Tally>,
    /// By comment; empty before the conversation's vectors are learned.
    vectors: Vec<Vec<f32>>,
    /// Votes of a conversation from which its vectors are learned.
    learn_at: Vec<u32>,
}

impl Polis {
    /// Learns vectors by `embed`, once for each conversation, and hands all events to `sink`.
    pub fn emit(self, embed: &Embed<'_>, sink: &mut Sink<'_>) -> Result<ImportReport, ImportError> {
        let mut out = Emitter::new(self.report.clone(), sink);
        let mut known = self.nothing_known();
        let mut unwritten: Vec<u32> = (0..self.comments.len() as u32).collect();
        unwritten.sort_by_key(|c| std::cmp::Reverse(self.comments[*c as usize].time_ms));
        for (n, vote) in self.votes.iter().enumerate() {
            while let Some(comment) = unwritten.pop_if(|c| self.comments[*c as usize].time_ms <= vote.time_ms)
            {
                let time_ms = self.comments[comment as usize].time_ms;
                self.write(comment, time_ms, &known, &mut out)?;
            }
            self.emit_vote(vote, &mut out)?;
            self.learn(n, vote, embed, &mut known, &mut out)?;
        }
        while let Some(comment) = unwritten.pop() {
            self.write(comment, self.comments[comment as usize].time_ms, &known, &mut out)?;
        }
        out.finish()
    }

    fn nothing_known(&self) -> Known {
        let mut votes = vec![0u32; self.conversations.len()];
        for vote in &self.votes {
            votes[self.conversation(vote)] += 1;
        }
        let share = self.embed_share.clamp(0.0, 1.0);
        Known {
            comments: vec![[0; 3]; self.comments.len()],
            conversations: vec![[0; 3]; self.conversations.len()],
            vectors: vec![Vec::new(); self.comments.len()],
            learn_at: votes.iter().map(|n| (f64::from(*n) * share).ceil() as u32).collect(),
        }
    }

    fn conversation(&self, vote: &Vote) -> usize {
        self.comments[vote.comment as usize].conversation as usize
    }

    fn emit_vote(&self, vote: &Vote, out: &mut Emitter<'_, '_>) -> Result<(), ImportError> {
        let conversation = &self.conversations[self.conversation(vote)];
        let request = RequestId::new(format!("p{}", vote.row))?;
        let user = UserId::new(format!("{conversation}/{}", vote.voter))?;
        let item = self.item_id(vote.comment)?;
        let name = match vote.choice {
            Choice::Disagree => "hide",
            Choice::Pass => "pass",
            Choice::Agree => "save",
        };
        let surface = Some(conversation.clone());
        out.push(shown(request.clone(), user.clone(), item.clone(), vote.time_ms, surface.clone()))?;
        let id = format!("{request}:{name}");
        out.push(action(id, user, item, name, vote.time_ms, Some(request), surface)?)
    }

    /// Takes a vote into account, after it was emitted, and writes what changed enough.
    fn learn(
        &self,
        n: usize,
        vote: &Vote,
        embed: &Embed<'_>,
        known: &mut Known,
        out: &mut Emitter<'_, '_>,
    ) -> Result<(), ImportError> {
        let (comment, conversation) = (vote.comment as usize, self.conversation(vote));
        known.comments[comment][vote.choice as usize] += 1;
        known.conversations[conversation][vote.choice as usize] += 1;
        if total(&known.conversations[conversation]) == known.learn_at[conversation] {
            let members = self.vectors(conversation, &self.votes[..=n], embed, known)?;
            for member in members.into_iter().filter(|c| self.comments[*c as usize].time_ms <= vote.time_ms) {
                self.write(member, vote.time_ms, known, out)?;
            }
            return Ok(());
        }
        let votes = total(&known.comments[comment]);
        if (votes <= 16 && votes.is_power_of_two()) || votes.is_multiple_of(REFRESH) {
            self.write(vote.comment, vote.time_ms, known, out)?;
        }
        Ok(())
    }

    /// Learns a conversation's vectors from the votes so far; returns its statements.
    ///
    /// Each voter gives two lists, what they agreed and what they disagreed with: statements are near to each other
    /// where the same people judge them alike.
    fn vectors(
        &self,
        conversation: usize,
        votes: &[Vote],
        embed: &Embed<'_>,
        known: &mut Known,
    ) -> Result<Vec<u32>, ImportError> {
        let is_member = |c: &u32| self.comments[*c as usize].conversation as usize == conversation;
        let members: Vec<u32> = (0..self.comments.len() as u32).filter(is_member).collect();
        let mut lists: BTreeMap<(u32, bool), Vec<u32>> = BTreeMap::new();
        for vote in votes.iter().filter(|v| v.choice != Choice::Pass) {
            if let Ok(at) = members.binary_search(&vote.comment) {
                lists.entry((vote.voter, vote.choice == Choice::Agree)).or_default().push(at as u32);
            }
        }
        let sequences: Vec<Vec<u32>> = lists.into_values().collect();
        let vectors = embed(&sequences, members.len());
        if vectors.len() != members.len() * VECTOR_DIM {
            return Err(ImportError::Vectors { items: members.len(), got: vectors.len() });
        }
        for (member, vector) in members.iter().zip(vectors.chunks_exact(VECTOR_DIM)) {
            // A statement that nobody has judged yet has no vector, and gets none later.
            if known.comments[*member as usize] != [0; 3] {
                known.vectors[*member as usize] = vector.to_vec();
            }
        }
        Ok(members)
    }

    fn write(
        &self,
        comment: u32,
        time_ms: i64,
        known: &Known,
        out: &mut Emitter<'_, '_>,
    ) -> Result<(), ImportError> {
        let at = &self.comments[comment as usize];
        let (own, all) = (known.comments[comment as usize], known.conversations[at.conversation as usize]);
        let mut features = FeatureValues::new();
        let conversation = self.conversations[at.conversation as usize].clone();
        features.insert("conversation".to_owned(), FeatureValue::Text(conversation));
        features.insert("votes".to_owned(), FeatureValue::Number(f64::from(total(&own))));
        for (i, name) in ["disagree_rate", "pass_rate", "agree_rate"].into_iter().enumerate() {
            // One vote of each kind keeps the rates of a conversation's first votes away from 0 and 1.
            let prior = f64::from(all[i] + 1) / f64::from(total(&all) + 3);
            let rate = (f64::from(own[i]) + PRIOR * prior) / (f64::from(total(&own)) + PRIOR);
            features.insert(name.to_owned(), FeatureValue::Number(rate));
        }
        let vector = &known.vectors[comment as usize];
        if !vector.is_empty() {
            features.insert("vector".to_owned(), FeatureValue::Vector(vector.clone()));
        }
        out.push(item(self.item_id(comment)?, time_ms, features, at.active))
    }

    fn item_id(&self, comment: u32) -> Result<ItemId, ImportError> {
        let comment = &self.comments[comment as usize];
        let conversation = &self.conversations[comment.conversation as usize];
        Ok(ItemId::new(format!("{conversation}/{}", comment.id))?)
    }
}

fn total(tally: &Tally) -> u32 {
    tally.iter().sum()
}
