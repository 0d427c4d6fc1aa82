//! Realistic MemCells to test, demonstrate and measure with: the same seed gives the same documents, byte for byte.
//!
//! They are in the form that the HTTP API takes. Chats in English and Chinese, with emoji, quotes and line breaks, of several
//! users and groups over nine months; as in life, some fields are null, some absent, and some unknown to the host.

use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::random::Random;

/// The size of a sample unless another one is asked for, in bytes of compact JSON.
pub const DEFAULT_BYTES: usize = 2048;

/// The smallest size that can be had; see [`Samples::sized`].
pub const MIN_BYTES: usize = 1200;

/// 2025-01-01T00:00:00Z, the earliest timestamp, in Unix milliseconds.
const FIRST_MILLIS: i64 = 1_735_689_600_000;

/// The timestamps are spread evenly over this long: 270 days.
const SPAN_MILLIS: u64 = 270 * 24 * 60 * 60 * 1000;

/// An endless sequence of MemCells. `Samples::new(1).take(count)` is what most callers want.
#[derive(Debug, Clone)]
pub struct Samples {
    random: Random,
    bytes: usize,
    with_ids: bool,
    made: u64,
}

impl Samples {
    /// The sequence that belongs to `seed`, of [`DEFAULT_BYTES`] each and without ids.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), bytes: DEFAULT_BYTES, with_ids: false, made: 0 }
    }

    /// Makes each about `bytes` of compact JSON large, to within 16 bytes; at least [`MIN_BYTES`].
    #[must_use]
    pub fn sized(mut self, bytes: usize) -> Self {
        self.bytes = bytes.max(MIN_BYTES);
        self
    }

    /// Gives each an `event_id`, so that importing them twice stores them once. Ids of one seed never repeat.
    #[must_use]
    pub fn with_ids(mut self) -> Self {
        self.with_ids = true;
        self
    }

    fn make(&mut self) -> Value {
        let number = self.made;
        self.made += 1;
        let random = &mut self.random;
        let language = if random.one_in(3) { &CHINESE } else { &ENGLISH };
        let user = format!("user_{:03}", 1 + random.below(24));
        let group = (!random.one_in(5)).then(|| format!("group_{}", 1 + random.below(6)));
        let at = FIRST_MILLIS + i64::try_from(random.below(SPAN_MILLIS)).unwrap_or(0);
        let topic = pick(random, language.topics);

        let mut cell = Map::new();
        let id = random.bits();
        if self.with_ids {
            cell.insert("event_id".into(), json!(format!("{:08x}{:08x}{number:08x}", at / 1000, id >> 32)));
        }
        cell.insert("user_id".into(), if random.one_in(12) { Value::Null } else { json!(user) });
        cell.insert("timestamp".into(), json!(timestamp(random, language, at)));
        cell.insert("summary".into(), json!(sentence(random, language)));
        if group.is_some() || random.one_in(2) {
            cell.insert("group_id".into(), json!(group));
        }
        cell.insert("type".into(), json!("Conversation"));
        let mut participants = vec![user.clone(), "robot_001".to_owned()];
        if group.is_some() {
            participants.push(format!("user_{:03}", 1 + random.below(24)));
            participants.dedup();
        }
        cell.insert("participants".into(), json!(participants));
        if !random.one_in(4) {
            cell.insert("subject".into(), json!(topic));
        }
        let keywords: Vec<&str> = (0..1 + random.index(4)).map(|_| pick(random, language.keywords)).collect();
        cell.insert("keywords".into(), json!(keywords));
        if random.one_in(3) {
            cell.insert("linked_entities".into(), if random.one_in(3) { json!([]) } else { json!([topic, user]) });
        }
        if !random.one_in(3) {
            let fact = sentence(random, language);
            cell.insert(
                "event_log".into(),
                json!({"time": at / 1000, "atomic_fact": [fact], "confidence": hundredths(random)}),
            );
        }
        if random.one_in(4) {
            let item =
                json!({"content": sentence(random, language), "evidence": null, "duration_days": random.below(90)});
            cell.insert("foresight_memories".into(), json!([item]));
        } else if random.one_in(4) {
            cell.insert("foresight_memories".into(), Value::Null);
        }
        if !random.one_in(3) {
            cell.insert(
                "extend".into(),
                json!({"source": "sample", "language": language.code, "turn": number, "tags": []}),
            );
        }
        // Fields that the host doesn't know: numbers beyond what a double holds, fractions, nesting, the empty string.
        if random.one_in(3) {
            let pipeline = json!({"version": "2.1", "cursor": 9_007_199_254_740_993_i64 + i64::try_from(number).unwrap_or(0),
                "score": hundredths(random), "flags": {"reviewed": random.one_in(2), "note": ""}});
            cell.insert("pipeline".into(), pipeline);
        }
        let chat = group.unwrap_or_else(|| format!("chat_{user}"));
        let mut cell = Value::Object(cell);
        self.add_messages(&mut cell, language, &user, &chat);
        cell
    }

    /// Adds as many messages as the size allows, the last one cut to fit.
    fn add_messages(&mut self, cell: &mut Value, language: &Language, user: &str, chat: &str) {
        let mut size = encoded_len(cell) + r#","original_data":[]"#.len();
        let (data_type, meta) = (json!("Conversation"), json!({"chat_id": chat}));
        size += encoded_len(&json!({"data_type": data_type, "messages": [], "meta": meta}));
        let mut messages: Vec<Value> = Vec::new();
        loop {
            let number = messages.len();
            let random = &mut self.random;
            let (sender, name) = if number.is_multiple_of(2) { (user, "user") } else { ("robot_001", "assistant") };
            let files = if random.one_in(6) {
                json!([{"name": "photo.jpg", "bytes": random.below(5_000_000)}])
            } else {
                Value::Null
            };
            let mut content =
                (0..1 + random.index(4)).map(|_| sentence(random, language)).collect::<Vec<_>>().join(" ");
            let extend = json!({"sender": sender, "sender_name": name, "message_id": format!("msg_{number:03}")});
            let comma = usize::from(number > 0);
            let frame = comma + encoded_len(&json!({"content": "", "files": files, "extend": extend}));
            // Text is what encoding puts between the two quotes.
            let room = self.bytes.saturating_sub(size + frame);
            let is_last = room < text_len(&content) + 400;
            if is_last {
                while text_len(&content) < room {
                    content.push(' ');
                    content.push_str(&sentence(random, language));
                }
                let mut excess = text_len(&content).saturating_sub(room);
                while excess > 0 {
                    let Some(last) = content.pop() else { break };
                    excess = excess.saturating_sub(text_len(last.encode_utf8(&mut [0; 4])));
                }
            }
            size += frame + text_len(&content);
            messages.push(json!({"content": content, "files": files, "extend": extend}));
            if is_last {
                break;
            }
        }
        if let Some(cell) = cell.as_object_mut() {
            let data = json!([{"data_type": data_type, "messages": messages, "meta": meta}]);
            cell.insert("original_data".into(), data);
        }
    }
}

impl Iterator for Samples {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        Some(self.make())
    }
}

/// What people of one language talk about, and how.
struct Language {
    code: &'static str,
    /// Hours east of UTC that timestamps are sometimes written with.
    offset_hours: i8,
    topics: &'static [&'static str],
    keywords: &'static [&'static str],
    sentences: &'static [&'static str],
    /// What takes the place of `{}` in a sentence.
    things: &'static [&'static str],
}

const ENGLISH: Language = Language {
    code: "en",
    offset_hours: -5,
    topics: &["Weekend trip", "Release planning", "Training for a race", "Kitchen renovation", "A birthday surprise"],
    keywords: &["travel", "planning", "health", "food", "music", "deadline", "family", "budget", "café", "C++"],
    sentences: &[
        "Could you remind me about {} next Thursday?",
        "We talked about {} before, and I still think it is worth the money 💡.",
        "My sister said \"never again\" when I brought up {}, but she laughed 😂.",
        "First we look at {}, then we decide:\n1. the price\n2. the date\n3. who comes along",
        "The doctor recommends {} three times a week, with rest in between.",
        "I noted that you prefer {} in the morning 🌅.",
        "Honestly, {} took longer than it should have — two hours instead of 45 minutes.",
        "Here is a plan for {}: start small, write down what happens, and review it on Sunday ✅.",
    ],
    things: &[
        "the train to Zürich",
        "swimming",
        "the quarterly report",
        "the new oven",
        "Ana's party",
        "a long walk",
        "jazz",
    ],
};

const CHINESE: Language = Language {
    code: "zh",
    offset_hours: 8,
    topics: &["周末旅行", "项目发布计划", "膝盖康复训练", "厨房装修", "给妈妈的生日惊喜"],
    keywords: &["旅行", "计划", "健康", "美食", "音乐", "截止日期", "家庭", "预算", "火锅", "𠮷野家"],
    sentences: &[
        "下周四提醒我关于{}的事，好吗？",
        "我们之前聊过{}，我还是觉得值得花这个钱💡。",
        "我姐姐听到{}就说“再也不要了”，然后大家都笑了😂。",
        "先看看{}，再决定：\n一、价格\n二、日期\n三、谁一起去",
        "医生建议每周进行三次{}，中间注意休息。",
        "记下了：你早上更喜欢{}🌅。",
        "说实话，{}花的时间比预想的长，两个小时而不是四十五分钟。",
        "关于{}的计划：从小处开始，每天记录，周日一起回顾✅。",
    ],
    things: &["去北京的高铁", "游泳", "季度报告", "新烤箱", "小雨的聚会", "散步", "爵士乐"],
};

fn pick(random: &mut Random, items: &[&'static str]) -> &'static str {
    random.pick(items).copied().unwrap_or_default()
}

fn sentence(random: &mut Random, language: &Language) -> String {
    let thing = pick(random, language.things);
    pick(random, language.sentences).replace("{}", thing)
}

fn hundredths(random: &mut Random) -> f64 {
    f64::from(u8::try_from(random.below(100)).unwrap_or(0)) / 100.0
}

/// The moment in one of the ways people write it: in UTC, with or without milliseconds, or with an offset.
fn timestamp(random: &mut Random, language: &Language, unix_millis: i64) -> String {
    let millis = if random.one_in(3) { unix_millis / 1000 * 1000 } else { unix_millis };
    let at =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let offset = if random.one_in(4) {
        UtcOffset::from_hms(language.offset_hours, 0, 0).unwrap_or(UtcOffset::UTC)
    } else {
        UtcOffset::UTC
    };
    at.to_offset(offset).format(&Rfc3339).unwrap_or_default()
}

/// Bytes of a value as compact JSON.
pub fn encoded_len(value: &Value) -> usize {
    value.to_string().len()
}

/// Bytes of a text within a JSON string.
fn text_len(text: &str) -> usize {
    // No control character but the line break occurs.
    text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | b'\n')).count()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_documents() {
        let first: Vec<Value> = Samples::new(42).take(50).collect();
        assert_eq!(first, Samples::new(42).take(50).collect::<Vec<_>>());
        assert_ne!(first, Samples::new(43).take(50).collect::<Vec<_>>());
        assert_eq!(first.iter().map(Value::to_string).collect::<HashSet<_>>().len(), 50);
    }

    #[test]
    fn sizes_are_what_was_asked_for() {
        for bytes in [MIN_BYTES, DEFAULT_BYTES, 20_000] {
            for cell in Samples::new(5).sized(bytes).with_ids().take(300) {
                let size = encoded_len(&cell);
                assert!(size.abs_diff(bytes) <= 16, "{size} bytes instead of {bytes}: {cell}");
            }
        }
        assert!(Samples::new(5).sized(1).take(100).all(|cell| encoded_len(&cell) <= MIN_BYTES + 16));
    }

    #[test]
    fn ids_are_ids_and_unique() {
        let ids: HashSet<String> =
            Samples::new(1).with_ids().take(2000).map(|cell| cell["event_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 2000);
        assert!(ids.iter().all(|id| id.len() == 24 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))));
        assert!(Samples::new(1).next().unwrap().get("event_id").is_none());
    }

    #[test]
    fn timestamps_are_moments_within_the_span() {
        for cell in Samples::new(9).take(500) {
            let text = cell["timestamp"].as_str().unwrap();
            let at = OffsetDateTime::parse(text, &Rfc3339).unwrap().unix_timestamp_nanos() / 1_000_000;
            let since = u64::try_from(at - i128::from(FIRST_MILLIS) + 1000).unwrap();
            assert!(since <= SPAN_MILLIS + 1000, "{text}");
        }
    }

    #[test]
    fn there_is_something_of_everything() {
        let cells: Vec<Value> = Samples::new(3).take(300).collect();
        let some = |holds: &dyn Fn(&Value) -> bool| cells.iter().any(holds) && !cells.iter().all(holds);
        for field in ["group_id", "subject", "event_log", "extend", "foresight_memories", "linked_entities", "pipeline"]
        {
            assert!(some(&|cell| cell.get(field).is_none()), "{field}");
        }
        for field in ["user_id", "group_id", "foresight_memories"] {
            assert!(some(&|cell| cell.get(field) == Some(&Value::Null)), "{field}");
        }
        assert!(some(&|cell| cell["keywords"][0].as_str().is_some_and(|word| !word.is_ascii())));
        assert!(some(&|cell| cell["timestamp"].as_str().unwrap().contains("+08:00")));
        assert!(cells.iter().map(|cell| cell["group_id"].to_string()).collect::<HashSet<_>>().len() >= 6);
        assert!(
            cells.iter().all(|cell| !cell["original_data"][0]["messages"][0]["content"].as_str().unwrap().is_empty())
        );
    }
}
