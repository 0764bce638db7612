//! Features of users and videos, from the official columns.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use jiff::civil::Date;
use lately_features::FeatureValue;
use lately_features::event::FeatureValues;

use super::super::table::{Table, cut, number, optional};
use super::super::{ImportError, ImportReport};

/// Categorical columns of users, by the same name in the schema.
const USER_CATEGORIES: [&str; 25] = [
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    "onehot_feat0",
    "onehot_feat1",
    "onehot_feat2",
    "onehot_feat3",
    "onehot_feat4",
    "onehot_feat5",
    "onehot_feat6",
    "onehot_feat7",
    "onehot_feat8",
    "onehot_feat9",
    "onehot_feat10",
    "onehot_feat11",
    "onehot_feat12",
    "onehot_feat13",
    "onehot_feat14",
    "onehot_feat15",
    "onehot_feat16",
    "onehot_feat17",
];
/// Counts of users, by the same name in the schema.
const USER_COUNTS: [&str; 4] = ["follow_user_num", "fans_user_num", "friend_user_num", "register_days"];
/// Categorical columns of videos, by the same name in the schema.
const ITEM_CATEGORIES: [&str; 3] = ["video_type", "upload_type", "music_type"];
/// Tags kept of a video, as in the schema; the data has at most three.
const MAX_TAGS: usize = 4;

/// Users with their fields; kept as text, which is a fifth of the size of the features.
pub(super) struct UserTable {
    rows: Vec<(u32, Box<[Box<str>]>)>,
}

impl UserTable {
    pub(super) fn read(path: &Path, report: &mut ImportReport) -> Result<Self, ImportError> {
        let mut table = Table::open(path)?;
        let [id] = table.columns(["user_id"])?;
        let categories = table.columns(USER_CATEGORIES)?;
        let counts = table.columns(USER_COUNTS)?;
        let (mut rows, mut seen) = (Vec::new(), HashSet::new());
        while let Some(record) = table.next()? {
            report.rows += 1;
            let parsed = record.fields.and_then(|fields| {
                let user: u32 = number("user_id", &fields[id])?;
                for (name, at) in USER_COUNTS.iter().zip(counts) {
                    count(name, &fields[at])?;
                }
                if !seen.insert(user) {
                    return Err(format!("user_id {user} has a row already"));
                }
                let kept = categories.iter().chain(&counts).map(|at| fields[*at].as_str().into());
                Ok((user, kept.collect()))
            });
            match parsed {
                Ok(row) => rows.push(row),
                Err(reason) => report.bad(&table.name, record.line, reason),
            }
        }
        Ok(Self { rows })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Ids and features, in the order of the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, FeatureValues)> {
        self.rows.iter().map(|(id, fields)| {
            let (categories, counts) = fields.split_at(USER_CATEGORIES.len());
            let mut values = FeatureValues::new();
            for (name, field) in USER_CATEGORIES.iter().zip(categories).filter(|(_, f)| !f.is_empty()) {
                values.insert((*name).to_owned(), FeatureValue::Text(field.to_string()));
            }
            for (name, field) in USER_COUNTS.iter().zip(counts) {
                if let Ok(Some(n)) = count(name, field) {
                    values.insert((*name).to_owned(), FeatureValue::Number(n));
                }
            }
            (*id, values)
        })
    }
}

fn count(name: &str, text: &str) -> Result<Option<f64>, String> {
    match optional(name, text)? {
        Some(n) if n < 0.0 => Err(format!("{name} is {n}: expected a count")),
        other => Ok(other),
    }
}

/// Videos, by position: those of the features' file, then those that only the logs know.
pub(super) struct ItemTable {
    rows: Vec<(u32, FeatureValues)>,
    positions: HashMap<u32, u32>,
}

impl ItemTable {
    pub(super) fn read(path: &Path, report: &mut ImportReport) -> Result<Self, ImportError> {
        let mut table = Table::open(path)?;
        let columns = table.columns([
            "video_id",
            "video_type",
            "upload_type",
            "music_type",
            "tag",
            "upload_dt",
            "video_duration",
            "server_width",
            "server_height",
        ])?;
        let mut items = Self { rows: Vec::new(), positions: HashMap::new() };
        while let Some(record) = table.next()? {
            report.rows += 1;
            let parsed = record.fields.and_then(|fields| {
                let fields = columns.map(|c| fields[c].as_str());
                let video: u32 = number("video_id", fields[0])?;
                let values = item_features(&fields)?;
                if items.positions.contains_key(&video) {
                    return Err(format!("video_id {video} has a row already"));
                }
                Ok((video, values))
            });
            match parsed {
                Ok((video, values)) => items.push(video, values),
                Err(reason) => report.bad(&table.name, record.line, reason),
            }
        }
        Ok(items)
    }

    fn push(&mut self, video: u32, values: FeatureValues) {
        self.positions.insert(video, self.rows.len() as u32);
        self.rows.push((video, values));
    }

    /// Position of a video; one without features is added.
    pub(super) fn position(&mut self, video: u32) -> u32 {
        if !self.positions.contains_key(&video) {
            self.push(video, FeatureValues::new());
        }
        self.positions[&video]
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The video's id.
    pub(super) fn video(&self, position: u32) -> u32 {
        self.rows[position as usize].0
    }

    /// Ids and features by position.
    pub(super) fn rows(&self) -> &[(u32, FeatureValues)] {
        &self.rows
    }
}

/// Of the columns video_id, video_type, upload_type, music_type, tag, upload_dt, video_duration, width, height.
fn item_features(fields: &[&str; 9]) -> Result<FeatureValues, String> {
    let mut values = FeatureValues::new();
    for (name, text) in ITEM_CATEGORIES.iter().zip(&fields[1..4]).filter(|(_, t)| !t.is_empty()) {
        values.insert((*name).to_owned(), FeatureValue::Text((*text).to_owned()));
    }
    let tags = fields[4].split(',').map(str::trim).filter(|t| !t.is_empty());
    let tags: Vec<String> = tags.take(MAX_TAGS).map(str::to_owned).collect();
    if !tags.is_empty() {
        values.insert("tag".to_owned(), FeatureValue::Texts(tags));
    }
    if let Some(age) = age_days(fields[5])? {
        values.insert("age_days".to_owned(), FeatureValue::Number(age));
    }
    if let Some(duration) = count("video_duration", fields[6])? {
        values.insert("video_duration".to_owned(), FeatureValue::Number(duration));
    }
    let size = (count("server_width", fields[7])?, count("server_height", fields[8])?);
    if let (Some(width), Some(height)) = size
        && width > 0.0
        && height > 0.0
    {
        values.insert("aspect".to_owned(), FeatureValue::Number(width / height));
    }
    Ok(values)
}

/// Days from upload to the start of the window.
fn age_days(text: &str) -> Result<Option<f64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| format!("upload_dt is `{}`: expected YYYY-MM-DD", cut(text));
    let upload: Date = text.parse().map_err(wrong)?;
    let start = Date::constant(2022, 4, 25);
    Ok(Some(f64::from((start - upload).get_days())))
}
